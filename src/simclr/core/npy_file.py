"""Files of numpy's format .npy."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_ROWS = 1024  # copied at a time


def write(path: Path, array: npt.NDArray[Any]) -> None:
    """Write `array` (N, ...), in any memory layout, with the bytes of np.save, which does not say why a write failed.

    Raises:
        OSError: it did; with the reason, such as a full disk.
    """
    layout = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, layout)
        for start in range(0, len(array), _ROWS):
            file.write(np.ascontiguousarray(array[start : start + _ROWS]).data)
