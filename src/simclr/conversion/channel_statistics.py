"""The mean and the standard deviation of each channel over the pixels of a .beton file."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simclr.core import thread_pool
from simclr.core.prefetch import prefetch
from simclr.core.randomness import permutation
from simclr.data.beton import RAW, Beton
from simclr.images.decode_image import decode

_MEASURED = 50_000
"""The largest number of images that are measured."""
_BATCH = 256
"""Images for one call in the background: a small image takes less time than handing over a call."""


class ChannelStatistics(NamedTuple):
    """Of values from 0 to 1, in the order red, green, blue."""

    mean: list[float]
    std: list[float]
    """1 for a channel that is constant."""


def measure(file: Beton, seed: int) -> ChannelStatistics:
    """Measure all images of `file`, or 50,000 of them that are drawn by `seed`."""

    def histograms(samples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        counts = np.zeros((3, 256), np.int64)
        for sample in samples:
            counts += [np.bincount(channel, minlength=256) for channel in _pixels(file, sample).T]
        return counts

    samples = np.sort(permutation(len(file), seed)[:_MEASURED])
    batches = np.array_split(samples, -(-len(samples) // _BATCH))
    counts = sum(prefetch(histograms, batches, thread_pool.THREADS), np.zeros((3, 256), np.int64))
    mean, std = [], []
    for channel in counts:  # in integers, so that all machines round alike
        count, total, squares = (int(channel @ np.arange(256) ** power) for power in range(3))
        mean.append(total / count / 255)
        std.append(math.sqrt(count * squares - total**2) / count / 255 or 1.0)
    return ChannelStatistics(mean, std)


def _pixels(file: Beton, sample: np.int64) -> npt.NDArray[np.uint8]:
    """The pixels (N, 3) of one image."""
    stored = file.data[file.starts[sample] : file.starts[sample] + file.sizes[sample]]
    if file.modes[sample] != RAW:
        stored = decode(stored.tobytes(), f"{file.path}: image {sample}")
    return stored.reshape(-1, 3)
