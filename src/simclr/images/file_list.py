"""A list of the image files of a folder with their digests, of which DVC hashes one file instead of all of them.

    # /data/pictures
    0c1ff6ff8b4cf0ff3b3c9a3a7d1a4b41  train/cat/1.jpg

The first line names the folder, the others have the form of `b2sum --length=128`, which checks them in that folder.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simclr.core import atomic
from simclr.core.errors import UserError

_LINE = re.compile(r"([0-9a-f]{32})  (.+)")


@dataclass(frozen=True)
class FileList:
    """The digests (`source_images.digest`) of the files of `root`, by their paths relative to it."""

    root: Path
    digests: dict[str, str]


def write(path: Path, root: Path, digests: Iterable[tuple[str, str]]) -> None:
    """Write the list of the files of `root`, given as pairs of a relative path and a digest, to `path`.

    Raises:
        UserError: it cannot be written.
    """
    lines = [f"# {root}", *(f"{digest}  {name}" for name, digest in digests)]
    atomic.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> FileList:
    """Read the list that `write` wrote.

    Raises:
        UserError: it cannot be read, or a line has another form; names the line.
    """
    try:
        first, *lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no list of files: it is not UTF-8; `simclr list` writes one") from error
    if not first.startswith("# /"):
        raise UserError(
            f"{path}: no list of files: line 1 is not '# ' and the path of a folder; `simclr list` writes one"
        )
    digests = {}
    for number, line in enumerate(lines, 2):
        if found := _LINE.fullmatch(line):
            digests[found[2]] = found[1]
        elif line:
            raise UserError(f"{path}: line {number} is not a digest, two spaces and a path; `simclr list` writes them")
    return FileList(Path(first.removeprefix("# ")), digests)
