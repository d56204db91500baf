"""Subsets of labelled samples."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation
from simclr.data.sampling import Indices


def stratified(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """`fraction` of each class, rounded: (the rest, the part), both in ascending order.

    A class of two samples or more has at least one in each; a single sample stays in the rest.
    """
    samples = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        samples.append(members[permutation(len(members), seed, int(label))[:count]])
    subset = np.sort(np.concatenate(samples))
    return np.setdiff1d(np.arange(len(labels)), subset), subset
