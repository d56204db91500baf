"""glibc's malloc, the allocator of CPU tensors."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Keep freed memory in this process for later allocations; this cannot be undone.

    By default (mallopt(3), M_MMAP_THRESHOLD) a block above 32 MiB goes back to the system at once: a batch of large
    views would map it again at every step, and zeroing the pages, 4 KiB each, costs more than the work on them.
    With another C library nothing changes.
    """
    with suppress(OSError, AttributeError):
        malloc = ctypes.CDLL("libc.so.6")
        malloc.mallopt(_MMAP_MAX, 0)
        malloc.mallopt(_TRIM_THRESHOLD, -1)
