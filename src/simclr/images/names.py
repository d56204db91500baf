"""The names of image files: which files are images, in which order, and how they stand in messages."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

NAMED = 20  # the most files, folders or classes in a message
KINDS, EXAMPLES = 5, 2  # the most suffixes in a message on skipped files, and files of each


def is_image(name: str) -> bool:
    """Whether `name` has the suffix of a format that Pillow opens."""
    return Image.registered_extensions().get(os.path.splitext(name)[1].lower()) in Image.OPEN


def visible(folder: Path) -> dict[str, bool]:
    """The names in `folder` that are not hidden, and whether each is a folder's, or that of a link to one.

    Raises:
        OSError: it cannot be read, or a link in it cannot be followed whose name is not an image's.
    """
    with os.scandir(folder) as entries:
        return {entry.name: _is_folder(entry) for entry in entries if not entry.name.startswith(".")}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        if not is_image(entry.name):
            raise
        return False  # reading it as a file fails too, and names it


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A key to sort by: numbers in a name count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def escape(name: str) -> str:
    """`name` with bytes that are not UTF-8, control characters and the like escaped."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def count_by_suffix(paths: Sequence[str]) -> str:
    """The number of `paths` by suffix, with the first ones: '12 .heic (a.heic, b.heic, ...), 1 .txt (c.txt)'."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        kinds[os.path.splitext(path)[1].lower() or "without a suffix"].append(path)
    most = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    named = [
        f"{len(files)} {escape(kind)} ({', '.join(map(escape, files[:EXAMPLES]))}{', ...' * (len(files) > EXAMPLES)})"
        for kind, files in most[:KINDS]
    ]
    return ", ".join(named) + (f" and {len(most) - KINDS} more kinds" if len(most) > KINDS else "")


def but_others(paths: Sequence[str]) -> str:
    """The end of a message that there are no images: what there is instead, the `paths`."""
    return f", but {count_by_suffix(paths)}" if paths else ""


def list_names(names: Sequence[str]) -> str:
    """The first of the `names`, escaped, and how many more there are: 'a, b and 3 more'."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(escape, names[:NAMED])) + more


def list_unreadable(reasons: Sequence[str], total: int) -> str:
    """How many of `total` images are unreadable, with the first of the `reasons`, each of which names its file."""
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return f"{len(reasons)} of {total} images are unreadable: {'; '.join(reasons[:NAMED])}{more}"
