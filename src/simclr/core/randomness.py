"""Counter-based random numbers: every draw is a hash of its counters, independent of order, thread and rank.

The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16),
chained over the counters: on the host in NumPy, and its last link on a device in torch.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Counter = int | npt.NDArray[np.integer[Any]]

_GAMMA, _FIRST, _SECOND = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_SIGNED = tuple(int(constant.astype(np.int64)) for constant in (_GAMMA, _FIRST, _SECOND))


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
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


def reaches(threshold: float, keys: Tensor, counters: Tensor) -> Tensor:
    """Whether `uniform(*first, counter) >= threshold`, computed where the tensors are.

    Args:
        keys: `hashes(*first)` as int64 of the same bits, because torch has no arithmetic on uint64 everywhere.
        counters: int64, broadcast against the `keys`.

    Returns:
        bool, of the broadcast shape.
    """
    return _high_bits(53, keys, counters) >= math.ceil(threshold * 2**53)


def integers(bound: int, keys: Tensor, counters: Tensor) -> Tensor:
    """Integers in [0, `bound`), one for each pair of a key and a counter, as in `reaches`; int64. `bound` is less than
    2^31."""
    return (_high_bits(31, keys, counters) * bound) >> 31


def _high_bits(count: int, keys: Tensor, counters: Tensor) -> Tensor:
    """The `count` high bits of `hashes(*first, counter)`, with `hashes(*first)` as the `keys`."""
    gamma, first, second = _SIGNED
    state = (keys ^ counters) + gamma
    state = (state ^ _shift_right(state, 30)) * first
    state = (state ^ _shift_right(state, 27)) * second
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 64 - count)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: torch's own shift of int64 repeats the sign."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def permutation(count: int, *counters: int) -> npt.NDArray[np.int64]:
    """A permutation of `count` samples, shape (count,): a function of `counters` (say, seed and epoch) alone."""
    keys = hashes(*counters, np.arange(count))
    return np.argsort(keys, kind="stable").astype(np.int64)
