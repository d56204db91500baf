"""Compiled loops over the rows of arrays, on all cores that this process has a share in.

numba's own parallel loops are not used: how many threads they get is a property of the thread that calls them, which
importing ffcv sets to one, and their pools do not outlive a fork.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

THREADS = max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
"""The cores that may be used, shared among the processes that torchrun started on this machine."""
_PARTS = 2
"""For each thread: some rows take longer than others."""


def crew(name: str) -> Callable[..., None]:
    """A function that works on rows with threads of its own.

    It is called with another function, which has to release the GIL, and arrays with as many rows each, and calls that
    on contiguous parts of them; it returns when all are done.
    """
    pool = ThreadPoolExecutor(THREADS, name)

    def over_rows(function: Callable[..., None], *arrays: npt.NDArray[Any]) -> None:
        edges = np.linspace(0, len(arrays[0]), _PARTS * THREADS + 1).astype(int)
        parts = [slice(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
        list(pool.map(lambda part: function(*(array[part] for array in arrays)), parts))

    return over_rows
