"""A list of the image files of a folder with their digests, of which DVC hashes one file instead of all of them.

    # 25000 files of /data/pictures
    0c1ff6ff8b4cf0ff3b3c9a3a7d1a4b41  train/cat/1.jpg

The lines after the first have the form of `b2sum --length=128`, which checks them in that folder.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simclr.core import atomic
from simclr.core.errors import UserError

_FIRST = re.compile(r"# ([0-9]{1,18}) files of (/.*)")
_LINE = re.compile(r"([0-9a-f]{32})  ([^\0]+)")


@dataclass(frozen=True)
class FileList:
    """The digests (`source_images.digest`) of the files of `root`, by their paths relative to it."""

    root: Path
    digests: dict[str, str]


def write(path: Path, root: Path, digests: Sequence[tuple[str, str]]) -> None:
    """Write the list of the files of `root`, given as pairs of a relative path and a digest, to `path`.

    Raises:
        UserError: it cannot be written.
    """
    lines = [f"# {len(digests)} files of {root}", *(f"{digest}  {name}" for name, digest in digests)]
    atomic.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> FileList:
    """Read the list that `write` wrote.

    Raises:
        UserError: it cannot be read, a line has another form, a path leaves the folder or stands there twice, or lines
            are missing; names the line.
    """
    try:
        first, *lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no list of files: it is not UTF-8; `simclr list` writes one") from error
    header = _FIRST.fullmatch(first)
    if not header:
        raise UserError(f"{path}: no list of files: line 1 is not '# N files of /a/folder'; `simclr list` writes one")
    digests: dict[str, str] = {}
    for number, line in enumerate(filter(None, lines), 2):
        match = _LINE.fullmatch(line)
        if not match:
            raise UserError(f"{path}: line {number} is not a digest, two spaces and a path; `simclr list` writes them")
        name = match[2]
        if name.startswith(("/", "../")) or os.path.normpath(name) != name:
            raise UserError(f"{path}: line {number}: {name} is not a plain path in {header[2]}")
        if name in digests:
            raise UserError(f"{path}: line {number}: {name} stands there twice")
        digests[name] = match[1]
    if len(digests) != int(header[1]):
        raise UserError(f"{path}: has {len(digests)} of its {header[1]} files; make it anew with `simclr list`")
    return FileList(Path(header[2]), digests)


def is_list(path: Path) -> bool:
    """Whether `path` begins as a list does."""
    try:
        with path.open(encoding="utf-8") as file:
            return bool(_FIRST.fullmatch(file.readline().rstrip("\n")))
    except (OSError, UnicodeDecodeError):
        return False
