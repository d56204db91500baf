"""Files that appear whole or not at all; without `simclr.core.atomic`, since a review runs where DVC alone is."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write `text` to `path`, or to what it is a link to; its folders are made.

    Raises:
        OSError: it cannot be written, or it is a device or a pipe; the old file is as it was.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")  # two programs may write at once
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        with suppress(OSError):  # it has become `path`
            partial.unlink()
