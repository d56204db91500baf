"""Two .beton files as one: both are mapped into one stretch of memory, so nothing is copied."""

import ctypes
import mmap
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simclr.core.errors import UserError
from simclr.data.beton import Beton

_MAP_FIXED, _MAP_NORESERVE, _MAP_FAILED = 0x10, 0x4000, ctypes.c_void_p(-1).value
"""Of Linux's sys/mman.h, which Python's mmap has not."""


def join(first: Beton, second: Beton) -> Beton:
    """The samples of `first`, then those of `second`.

    Raises:
        UserError: a file cannot be read any more.
    """
    try:
        start, data = _mapped(first.path, second.path)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
    rows = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("labels", "modes", "heights", "widths", "sizes")
    }
    starts = np.concatenate([first.starts, second.starts + start])
    return replace(first, path=Path(f"{first.path} and {second.path.name}"), starts=starts, data=data, **rows)


def _mapped(first: Path, second: Path) -> tuple[int, npt.NDArray[np.uint8]]:
    """Where in the memory the second file starts, and the memory (bytes,)."""
    start = _to_pages(first.stat().st_size)
    length = start + _to_pages(second.stat().st_size)
    # an address range of its own, whose pages are then replaced by those of the files
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    memory = mmap.mmap(-1, length, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    for path, offset in ((first, 0), (second, start)):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            shared = mmap.MAP_SHARED | _MAP_FIXED
            mapped = library.mmap(address + offset, size, mmap.PROT_READ, shared, file.fileno(), 0)
        if mapped == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    data = np.frombuffer(memory, np.uint8)  # which keeps the memory
    data.flags.writeable = False
    return start, data


def _to_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
