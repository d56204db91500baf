"""numba's compiler, for loops that run in several threads at once."""

from functools import partial

import numba


def njit(function):  # type: ignore[no-untyped-def]
    """Compile `function` without the GIL, cached for later processes where numba has a writable folder."""
    compiled = partial(numba.njit, function, nogil=True, error_model="numpy")
    try:
        return compiled(cache=True)
    except RuntimeError:  # neither the source folder nor a home folder is writable
        return compiled()
