"""Reading from the disk before it is needed, for files larger than memory."""

import ctypes
import mmap
import os
from functools import cache

import numpy as np

from simclr.core import control_groups
from simclr.data.beton import Beton
from simclr.data.sampling import Indices


@cache
def _memory() -> float:
    """The bytes of memory that this process may use."""
    return min(os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE, control_groups.memory())


def fits_memory(file: Beton) -> bool:
    """Whether the kernel can keep all of `file`: it takes at most half of the memory."""
    return len(file.data) <= _memory() / 2


def read_ahead(file: Beton, samples: Indices) -> None:
    """Ask the kernel to read the images of `samples` (n,) in the order of the file, neighbors in one piece, and go on;
    and not to read around what it is asked for, up to 8 MiB, as it does for files that are read from end to end
    (madvise(2)). A kernel that declines reads them when they are needed."""
    if not len(samples):
        return
    samples = np.unique(samples)
    starts, stops = file.starts[samples], file.starts[samples] + file.sizes[samples]
    pieces = np.flatnonzero(starts[1:] > stops[:-1] + mmap.PAGESIZE)
    firsts, lasts = starts[np.append(0, pieces + 1)], stops[np.append(pieces, len(stops) - 1)]
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    base = file.data.ctypes.data
    advise(base, len(file.data), mmap.MADV_RANDOM)
    for first, last in zip((firsts // mmap.PAGESIZE * mmap.PAGESIZE).tolist(), lasts.tolist(), strict=True):
        advise(base + first, last - first, mmap.MADV_WILLNEED)
