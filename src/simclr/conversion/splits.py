"""Subsets of labelled samples."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation
from simclr.data.sampling import Indices


def stratified(labels: npt.NDArray[np.int64], fraction: float, seed: int, least: int = 1) -> tuple[Indices, Indices]:
    """`fraction` of each class, rounded, but `least` samples at least: (the rest, the part), both in ascending order.

    The rest of a class has a sample at least; where it is the only one, the part has none.
    """
    samples = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(least, round(fraction * len(members))), len(members) - 1)
        samples.append(members[permutation(len(members), seed, int(label))[:count]])
    subset = np.sort(np.concatenate(samples))
    return np.setdiff1d(np.arange(len(labels)), subset), subset


def long_tailed(labels: npt.NDArray[np.int64], ratio: float, seed: int) -> Indices:
    """The samples, in ascending order, of a split whose classes shrink from the first to the last label by one factor
    from each to the next, so that the first has `ratio` times as many as the last (Cao et al. 2019, section 5.1).

    As there, the classes are taken to be of one size: each keeps its share of the samples that it has, rounded, and at
    least one.
    """
    classes = np.unique(labels)
    kept = []
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        share = ratio ** (-place / max(1, len(classes) - 1))
        kept.append(members[permutation(len(members), seed, int(label))[: max(1, round(share * len(members)))]])
    return np.sort(np.concatenate(kept))
