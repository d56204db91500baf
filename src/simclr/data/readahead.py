"""Reading from the disk before it is needed, for files larger than memory."""

import ctypes
import mmap

import numpy as np

from simclr.data.beton import Beton
from simclr.data.sampling import Indices


def read_ahead(file: Beton, samples: Indices) -> None:
    """Ask the kernel to read the images of `samples` (n,) in the order of the file, neighbors in one piece, and go on
    (madvise(2), MADV_WILLNEED). A kernel that declines reads them when they are needed."""
    samples = np.unique(samples)
    starts, stops = file.starts[samples], file.starts[samples] + file.sizes[samples]
    pieces = np.flatnonzero(starts[1:] > stops[:-1] + mmap.PAGESIZE)
    firsts, lasts = starts[np.append(0, pieces + 1)], stops[np.append(pieces, len(stops) - 1)]
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    base = file.data.ctypes.data
    for first, last in zip((firsts // mmap.PAGESIZE * mmap.PAGESIZE).tolist(), lasts.tolist(), strict=True):
        advise(base + first, last - first, mmap.MADV_WILLNEED)
