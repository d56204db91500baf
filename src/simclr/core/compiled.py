"""numba's compiler, for loops that threads run side by side."""

from functools import partial

import numba


def njit(function):  # type: ignore[no-untyped-def]
    """`function` compiled, and kept for the next process where numba finds a folder for it."""
    compiled = partial(numba.njit, function, nogil=True, error_model="numpy")
    try:
        return compiled(cache=True)
    except RuntimeError:  # neither beside the source nor in a home can anything be written
        return compiled()
