"""The image files of any folder."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.images import decode_image
from simclr.images.names import but_others, count_by_suffix, escape, is_image, natural_key, visible

MEGAPIXELS = 128
"""The largest image; `fetch.max_megapixels` as it is shipped."""

_Identity = tuple[int, int]
"""The device and the inode of a folder."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder:
    """Image files `names`, at least one, relative to `root`."""

    root: Path
    names: list[str]


@dataclass(frozen=True)
class _Visit:
    """A folder to be read, by its path relative to the root."""

    folder: str
    above: frozenset[_Identity]
    """The folders that it lies in, by its path and really."""
    again: bool
    """Whether it lies in a folder that is read once more."""


def find(root: Path) -> ImageFolder:
    """The image files in and below `root`, in natural order (2 before 10).

    Left out are hidden files and folders, and files without the suffix of a format that Pillow opens, which are counted
    and named. Links are followed, but for those to a folder that they lie in. A folder that is reached by two paths is
    read under both; of the links in it, those to other such folders are not followed once more.

    Raises:
        UserError: a folder is missing or cannot be read, or there are no images.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is a file, not a folder" if root.exists() else f"{root}: no such folder")
    images: list[str] = []
    others: list[str] = []
    seen: set[_Identity] = set()
    pending = [_Visit("", _parents(root), again=False)]
    while pending:
        visit = pending.pop()
        folder, above, again = visit.folder, visit.above, visit.again
        try:
            own = _identity(root / folder)
            if folder and os.path.islink(root / folder):
                if own in above or (again and own in seen):
                    continue
                again = again or own in seen
                above = above | _parents(root / folder)
            seen.add(own)
            entries = visible(root / folder)
        except OSError as error:
            raise UserError(f"{escape(str(error.filename))}: cannot be read ({error.strerror})") from error
        below = above | {own}
        # the last is the next to be read
        for name in sorted(entries, key=natural_key, reverse=True):
            path = os.path.join(folder, name)
            if entries[name]:
                pending.append(_Visit(path, below, again))
            else:
                (images if is_image(name) else others).append(path)
    if not images:
        raise UserError(f"{root}: holds no image files{but_others(sorted(others))}")
    if others:
        _log.info(f"left out, no images by their suffix: {count_by_suffix(sorted(others))}")
    return ImageFolder(root, sorted(images, key=lambda path: [natural_key(part) for part in path.split(os.sep)]))


def _identity(folder: Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _parents(folder: Path) -> frozenset[_Identity]:
    """The folders that `folder` really lies in, as far as they can be looked at."""
    found = set()
    for parent in Path(os.path.realpath(folder)).parents:
        with suppress(OSError):
            found.add(_identity(parent))
    return frozenset(found)


def read(path: Path) -> Pixels:
    """The image file `path` as (H, W, 3) uint8, as fetch reads it: upright, with white behind what is transparent.

    Raises:
        UserError: it is missing, no image, damaged, too large, or has a name that is not UTF-8.
    """
    name = escape(str(path))
    try:
        str(path).encode()
        if path.exists() and not path.is_file():
            raise UserError(f"{name}: not a regular file")  # reading from a pipe would never end
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{name}: the name is not UTF-8; rename it") from error
    return decode_image.decode(data, name, keys=False)
