"""Files of the safetensors format, opened."""

import errno
from pathlib import Path
from typing import Literal

from safetensors import safe_open


def opened(path: Path, framework: Literal["pt", "np"]) -> safe_open:
    """The file at `path`, for a `with`; its tensors are PyTorch's or numpy's.

    Raises:
        OSError: it cannot be read; with the reason, which safetensors does not tell.
        SafetensorError: it is damaged.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "it is no file")
    path.open("rb").close()
    return safe_open(path, framework)
