"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simclr.core.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for a file or a folder, which replaces `path` at the end.

    The old content of `path` stays whole until then; after an exception it is unchanged and the temporary is removed.
    Leftovers of a killed process are cleared first. Parent folders are made.

    Raises:
        UserError: the disk is full, a folder is not writable, or the like; or what `path` is made from cannot be read.
    """
    temporary, backup = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        _restore_or_remove(path, backup)
        yield temporary
        if temporary.is_file():
            _flush(temporary)
        elif os.path.lexists(path):
            path.replace(backup)  # a folder cannot be renamed over one with content
        temporary.replace(path)
    except OSError as error:
        if (other := _other_file(error, path, temporary, backup)) is not None:
            raise UserError(f"{other}: {error.strerror}") from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(temporary)
        _restore_or_remove(path, backup)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to the file `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _other_file(error: OSError, path: Path, *beside: Path) -> Path | None:
    """The file that `error` names, if that is neither `path` nor its parent, nor one of those `beside` it or below."""
    if not isinstance(error.filename, str):
        return None
    named = Path(error.filename)
    own = named in path.parents or any(named.is_relative_to(item) for item in (path, *beside))
    return None if own else named


def _restore_or_remove(path: Path, backup: Path) -> None:
    """Remove `backup`, or move it back to `path` if nothing is there."""
    if os.path.lexists(backup) and not os.path.lexists(path):
        backup.replace(path)
    _remove(backup)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _flush(path: Path) -> None:
    """Write the content to the disk before the rename: after a power cut the renamed file must not be empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
