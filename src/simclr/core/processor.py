"""The same arithmetic on every x86-64 processor, so that results on a CPU are the same bytes everywhere.

PyTorch, oneDNN, MKL, OpenBLAS, NumPy and numba each select kernels by the processor's instruction set. A wider vector
sums in another order: the last bits differ from the first layer on, and after some hundred steps of training they
decide percentage points. Here each library is held to AVX2 and FMA, which every x86-64 processor since 2013 (Intel
Haswell) or 2015 (AMD Excavator) has; that is slower than the widest vectors.

The libraries read these variables once, when they are loaded, so `simclr` sets them when it is imported. The section
`processor` of params.yaml selects native instructions or several threads, which change the last bits too;
`scripts/stage` passes them on as SIMCLR_CPU and SIMCLR_THREADS. Other programs set these two themselves.
"""

import os
import sys
import warnings
from pathlib import Path

HELD = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # the only branch that MKL has on the processors of all makers
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",  # none but those of that processor
}
"""The variables that hold each library; X86_V3 needs NumPy 2.4."""
_UNSET = ("NPY_DISABLE_CPU_FEATURES", "FREETYPE_PROPERTIES")
"""Variables to remove: NumPy takes only one of its two lists, and FreeType's changes the letters in pictures."""
_LIBRARIES = ("numpy", "scipy", "sklearn", "numba", "torch")
CPU, THREADS = "SIMCLR_CPU", "SIMCLR_THREADS"
MODES = ("held", "native")
MOST_THREADS = 1024
_CPUINFO = Path("/proc/cpuinfo")


def mode() -> str:
    """ "held" to AVX2 and FMA; "native" if SIMCLR_CPU says so, or on a processor without them."""
    return "native" if os.environ.get(CPU) == "native" or not _has_avx2() else "held"


def threads() -> int:
    """The number of torch's threads: SIMCLR_THREADS, or 1.

    OMP_NUM_THREADS is ignored, because clusters set it for every job.
    """
    value = os.environ.get(THREADS, "1")
    return int(value) if value.isdecimal() and 0 < int(value) <= MOST_THREADS else 1


def environment_error() -> str:
    """One line on an invalid SIMCLR_CPU or SIMCLR_THREADS; empty if both are valid."""
    cpu = os.environ.get(CPU, MODES[0])
    if cpu not in MODES:
        return f"environment: {CPU} = {cpu} is not allowed; it takes one of {', '.join(MODES)}"
    count = os.environ.get(THREADS, "1")
    if count != str(threads()):
        return f"environment: {THREADS} = {count} is not allowed; it takes an integer from 1 to {MOST_THREADS}"
    return ""


def hold() -> None:
    """Set the variables for this process and its children.

    Warns if a library was loaded before, and so selected its kernels already.
    """
    variables = {"OMP_NUM_THREADS": str(threads()), "MKL_NUM_THREADS": str(threads()), "OPENBLAS_NUM_THREADS": "1"}
    if mode() == "held":
        variables |= HELD
    late = [name for name in _LIBRARIES if name in sys.modules]
    if late and any(os.environ.get(name) != value for name, value in variables.items() if name in HELD):
        warnings.warn(
            f"{', '.join(late)} was loaded before simclr and uses this processor's own instructions: results are not "
            f"those of other processors. Import simclr first, or set {CPU}=native",
            RuntimeWarning,
            stacklevel=3,
        )
    os.environ.update(variables)
    for name in _UNSET:
        os.environ.pop(name, None)


def _has_avx2() -> bool:
    """Whether the processor has AVX2 and FMA, by /proc/cpuinfo."""
    try:
        flags = _CPUINFO.read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return {"avx2", "fma"} <= set(flags)
