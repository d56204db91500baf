"""glibc's malloc, where tensors on a CPU come from."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Have freed memory kept in this process for what comes next; this cannot be undone.

    By default (mallopt(3), M_MMAP_THRESHOLD) a block above 32 MiB goes back to the system at once: a batch of large
    views would get it again at every step, and the zeroed pages, 4 KiB by 4 KiB, cost more than what is done to them.
    Where there is another C library nothing changes.
    """
    with suppress(OSError, AttributeError):
        malloc = ctypes.CDLL("libc.so.6")
        malloc.mallopt(_MMAP_MAX, 0)
        malloc.mallopt(_TRIM_THRESHOLD, -1)
