"""The digests of the image files of a folder."""

from pathlib import Path

from simclr.commands import image_folder
from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.images import file_list
from simclr.images.names import escape
from simclr.images.source_images import digest
from simclr.tracking import progress


def check_output(output: Path) -> None:
    """Check, before all images are read, that the list `output` can be written: it may replace an older list alone.

    Raises:
        UserError: something else is there, or its folder does not exist.
    """
    try:
        output.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not output.parent.is_dir():
            raise UserError(f"--output {output} is not allowed: there is no folder {output.parent}") from None
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from error
    else:
        if not (output.is_file() and file_list.is_list(output)):
            raise UserError(f"--output {output} is not allowed: something else than a list of files is there")


def folder_digests(root: Path) -> list[tuple[str, str]]:
    """The paths of all image files of `root`, relative to it, with their digests.

    Raises:
        UserError: as `image_folder.find`; or a file cannot be read, or has a name that no list can hold.
    """
    names = image_folder.find(root).names
    paths = [root / name for name in names]
    for path in (root, *paths):
        _check_name(str(path))
    for path in paths:
        if path.exists() and not path.is_file():
            raise UserError(f"{escape(str(path))}: not a regular file")  # reading from a pipe would never end
    digests = []
    with progress.bar(len(names), "file", "list") as bar:
        for name, digest in zip(names, prefetch(_digest, paths, thread_pool.THREADS), strict=True):
            digests.append((name, digest))
            bar.update()
    return digests


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{escape(path)}: the name is not UTF-8; rename it") from error
    if "\n" in path or "\r" in path:
        raise UserError(f"{escape(path)}: the name has a line break; rename it")


def _digest(path: Path) -> str:
    try:
        return digest(path.read_bytes())
    except OSError as error:
        raise UserError(f"{escape(str(path))}: cannot be read ({error.strerror})") from error
