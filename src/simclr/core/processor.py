"""One arithmetic on every x86-64 processor, so that a CPU gives the same bytes whichever it is.

PyTorch's kernels, oneDNN, MKL, OpenBLAS, NumPy and numba each look at the processor and choose their code by it. A
wider vector sums in another order: the last bits differ from the first layer on, and after some hundred steps of
training the last bits decide percentage points. Here each library is held to AVX2 and FMA, which every x86-64
processor since 2013 (Intel Haswell) or 2015 (AMD Excavator) has; that takes longer than the widest vectors.

The libraries read these variables once, when they are loaded, so `simclr` sets them when it is imported. The section
`processor` of params.yaml asks for native speed, or for more threads than one, which change the last bits too;
`scripts/stage` hands that on as SIMCLR_CPU and SIMCLR_THREADS. Other programs set these two themselves.
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
"""What holds each library; NumPy 2.4 is the first that knows X86_V3."""
_UNSET = ("NPY_DISABLE_CPU_FEATURES", "FREETYPE_PROPERTIES")
"""What goes: NumPy does not take both of its lists, and FreeType draws letters otherwise."""
_LIBRARIES = ("numpy", "scipy", "sklearn", "numba", "torch")
CPU, THREADS = "SIMCLR_CPU", "SIMCLR_THREADS"
MODES = ("held", "native")
MOST_THREADS = 1024
_CPUINFO = Path("/proc/cpuinfo")


def mode() -> str:
    """ "held" to what all processors share, or "native", as SIMCLR_CPU asks or where AVX2 or FMA is missing."""
    return "native" if os.environ.get(CPU) == "native" or not _has_avx2() else "held"


def threads() -> int:
    """How many threads torch gets: SIMCLR_THREADS, or 1.

    OMP_NUM_THREADS has no say, because clusters set it for every job.
    """
    given = os.environ.get(THREADS, "1")
    return int(given) if given.isdecimal() and 0 < int(given) <= MOST_THREADS else 1


def refused() -> str:
    """What is wrong with the two variables, in one line; empty where nothing is."""
    given = os.environ.get(CPU, MODES[0])
    if given not in MODES:
        return f"environment: {CPU} = {given} is not allowed; it takes one of {', '.join(MODES)}"
    given = os.environ.get(THREADS, "1")
    if given != str(threads()):
        return f"environment: {THREADS} = {given} is not allowed; it takes an integer from 1 to {MOST_THREADS}"
    return ""


def hold() -> None:
    """Set the variables, for this process and those that it starts.

    Warns where a library has been loaded before, which then goes its own way.
    """
    wanted = {"OMP_NUM_THREADS": str(threads()), "MKL_NUM_THREADS": str(threads()), "OPENBLAS_NUM_THREADS": "1"}
    if mode() == "held":
        wanted |= HELD
    late = [name for name in _LIBRARIES if name in sys.modules]
    if late and any(os.environ.get(name) != value for name, value in wanted.items() if name in HELD):
        warnings.warn(
            f"{', '.join(late)} was loaded before simclr and uses this processor's own instructions: results are not "
            f"those of other processors. Import simclr first, or set {CPU}=native",
            RuntimeWarning,
            stacklevel=3,
        )
    os.environ.update(wanted)
    for name in _UNSET:
        os.environ.pop(name, None)


def _has_avx2() -> bool:
    """Whether Linux says that the processor has AVX2 and FMA."""
    try:
        flags = _CPUINFO.read_text(encoding="utf-8").partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return {"avx2", "fma"} <= set(flags)
