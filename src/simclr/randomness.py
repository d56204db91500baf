"""Randomness as a function: every draw is a hash of what it is for, so that no order, thread or rank can change it.

The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16),
chained over the counters.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Counter = int | npt.NDArray[np.integer[Any]]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def hashes(*counters: Counter) -> npt.NDArray[np.uint64]:
    """A hash of the tuple of non-negative `counters`, which are broadcast against each other."""
    state = np.zeros(1, np.uint64)
    for counter in counters:
        state = _mix((state ^ np.asarray(counter).astype(np.uint64)) + _GAMMA)
    return state.reshape(np.broadcast_shapes(*(np.shape(counter) for counter in counters)))


def uniform(*counters: Counter) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits, one for each tuple of the broadcast `counters`."""
    return (hashes(*counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(count: int, *counters: int) -> npt.NDArray[np.int64]:
    """The order of `count` samples, shape (count,): a function of `counters` (say, seed and epoch) alone."""
    keys = hashes(*counters, np.arange(count))
    return np.argsort(keys, kind="stable").astype(np.int64)
