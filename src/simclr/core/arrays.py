"""Arrays by name in a file of the safetensors format: equal arrays give equal bytes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save as serialise

from simclr.core import atomic, tensor_file
from simclr.core.errors import UserError

Arrays = Mapping[str, npt.NDArray[Any]]


def save(path: Path, arrays: Arrays) -> None:
    """Write `arrays` to `path`, which appears whole or not at all."""
    # safetensors writes the memory of an array as is, whatever its strides
    atomic.write_bytes(path, serialise({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def load(path: Path, names: Iterable[str], stage: str) -> Arrays:
    """Read the arrays `names` from a file that `save` wrote in `stage`.

    Raises:
        UserError: the file is missing or damaged, or lacks an array.
    """
    try:
        with tensor_file.opened(path, "np") as file:
            return {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); the {stage} stage writes it") from error
    except SafetensorError as error:
        raise UserError(f"{path}: damaged; the {stage} stage writes it") from error
