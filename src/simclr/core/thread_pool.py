"""Compiled loops over the rows of arrays, on all cores that this process may use.

numba's own parallel loops do not serve: the number of their threads is a property of the calling thread, which
importing ffcv sets to one, and their pools do not outlive a fork.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from simclr.core import control_groups


def cores(root: Path = Path("/")) -> int:
    """The number of cores this process may use: its CPU affinity, limited by the quota of its control groups. `root` is
    where /proc and /sys are."""
    return max(1, int(min(len(os.sched_getaffinity(0)), control_groups.cores(root))))


THREADS = max(1, cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) - (torch.cuda.device_count() > 0))
"""Threads of a pool: the usable cores over the processes that torchrun started on this machine; with GPUs each process
keeps one core for the thread that launches kernels."""
_BLOCKS = 2
"""Blocks for each thread, because some rows take longer than others."""


def row_pool(name: str) -> Callable[..., None]:
    """Return `over_rows(function, *arrays, least=1)`, which calls `function` on contiguous blocks of rows in a private
    pool, each of about `least` rows or more.

    `function` must release the GIL; all arrays have the same number of rows. It returns when all blocks are done.
    """
    pool = ThreadPoolExecutor(THREADS, name)

    def over_rows(function: Callable[..., None], *arrays: npt.NDArray[Any], least: int = 1) -> None:
        count = min(_BLOCKS * THREADS, max(1, len(arrays[0]) // least))
        edges = np.linspace(0, len(arrays[0]), count + 1).astype(int)
        blocks = [slice(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
        list(pool.map(lambda block: function(*(array[block] for array in arrays)), blocks))

    return over_rows
