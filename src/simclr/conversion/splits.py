"""Subsets of labelled samples."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation
from simclr.data.sampling import Indices


def stratified(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """`fraction` of each class, rounded: (the rest, the part), both in ascending order.

    A class with two samples or more has at least one in each; a single one stays in the rest.
    """
    part = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        part.append(members[permutation(len(members), seed, int(label))[:count]])
    chosen = np.sort(np.concatenate(part))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
