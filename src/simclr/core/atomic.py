"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simclr.core.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or make a folder under, which becomes `path` at the end.

    What stood at `path` is replaced then, and is whole until then. After an exception it is as it was, and nothing
    half-made stays. What a killed process left under other names is cleared first. Parent folders are made.

    Raises:
        UserError: the disk is full, a folder may not be written to, or the like.
    """
    temporary, aside = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        _settle(path, aside)
        yield temporary
        if temporary.is_file():
            _flush(temporary)
        elif os.path.lexists(path):
            path.replace(aside)  # a folder cannot be renamed over one with content
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(temporary)
        _settle(path, aside)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to the file `path`, as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _settle(path: Path, aside: Path) -> None:
    """Remove what was set `aside`, or bring it back where nothing stands in its place."""
    if os.path.lexists(aside) and not os.path.lexists(path):
        aside.replace(path)
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _flush(path: Path) -> None:
    """Have the disk hold the content before the name: after a power cut a renamed file must not be empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
