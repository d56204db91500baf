"""Training with few labels: the samples whose labels are used."""

import numpy as np
import numpy.typing as npt

from simclr.core.randomness import permutation
from simclr.data.sampling import Indices


def label_subset(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """`fraction` of the samples of each class, rounded, at least one, in ascending order.

    A subset is a part of every larger one with the same seed.
    """
    samples = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        samples.append(members[permutation(len(members), seed, int(label))[:count]])
    return np.sort(np.concatenate(samples))
