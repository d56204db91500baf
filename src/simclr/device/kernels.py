"""Whether kernels written in Triton run here."""

import warnings
from collections.abc import Callable


def work_here(probe: Callable[[], object], else_slower: str) -> bool:
    """Whether `probe`, which compiles a kernel, does so; if not, a warning says why, and what is slower without it."""
    try:
        probe()
    except Exception as error:  # of the compiler, the driver, a missing package: anything
        warnings.warn(f"Triton does not work here, {else_slower} slower: {error}", stacklevel=3)
        return False
    return True
