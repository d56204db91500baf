"""Subsets of labelled samples."""

import numpy as np
import numpy.typing as npt

from simclr.data.sampling import Indices, drawn_by_class


def stratified(labels: npt.NDArray[np.int64], fraction: float, seed: int, least: int = 1) -> tuple[Indices, Indices]:
    """`fraction` of each class, rounded, but `least` samples at least: (the rest, the part), both in ascending order.

    The rest of a class has a sample at least; where it is the only one, the part has none.
    """
    subset = drawn_by_class(labels, seed, lambda _, size: min(max(least, round(fraction * size)), size - 1))
    return np.setdiff1d(np.arange(len(labels)), subset), subset


def long_tailed(labels: npt.NDArray[np.int64], ratio: float, seed: int) -> Indices:
    """The samples, in ascending order, of a split whose classes shrink from the first to the last label by one factor
    from each to the next, so that the first has `ratio` times as many as the last (Cao et al. 2019, section 5.1).

    As there, the classes are taken to be of one size: each keeps its share of the samples that it has, rounded, and at
    least one.
    """
    last = max(1, len(np.unique(labels)) - 1)
    return drawn_by_class(labels, seed, lambda place, size: max(1, round(ratio ** (-place / last) * size)))
