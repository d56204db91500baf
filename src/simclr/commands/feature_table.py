"""Representations in a file of NumPy, and beside it the names of their images: FILE.npy and FILE.names.csv.

The table has one column, `name`, and a row for each image, in the order of the representations. Every name is quoted,
because it may hold commas, quotes and ends of lines.
"""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt

from simclr.core import npy_file
from simclr.core.atomic import replacing
from simclr.core.errors import UserError


@dataclass(frozen=True)
class FeatureTable:
    """Representations `h` (N, D) float32 of the image files `names` (N), relative to their folder."""

    names: list[str]
    h: npt.NDArray[np.float32]


def names_path(path: Path) -> Path:
    """The table of names beside the representations `path`."""
    return path.with_suffix(".names.csv")


@contextmanager
def writing(path: Path) -> Iterator[Callable[[FeatureTable], None]]:
    """Yield what writes the representations `path` and their names, to be called once; both appear at the end.

    That they can be written is tried at once, before hours of encoding. After an exception nothing has changed.

    Raises:
        UserError: they cannot.
    """
    with replacing(path) as features:
        features.touch()
        with replacing(names_path(path)) as listing:
            listing.touch()

            def write(table: FeatureTable) -> None:
                npy_file.write(features, table.h)
                with listing.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
                    writer.writerows([["name"], *([name] for name in table.names)])

            yield write


def load(path: Path) -> FeatureTable:
    """The representations `path` and their names, as `writing` wrote them.

    Raises:
        UserError: a file is missing or damaged, or they are not of equally many images.
    """
    listing = names_path(path)
    try:
        with path.open("rb") as file:
            h = np.lib.format.read_array(file)
        if h.dtype != np.float32 or h.ndim != 2 or not np.isfinite(h).all():
            raise ValueError("not (N, D) float32")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); `simclr embed` writes it") from error
    except (ValueError, EOFError, TokenError) as error:  # TokenError: of a damaged header
        raise UserError(f"{path}: damaged, or not the representations that `simclr embed` wrote") from error
    try:
        with listing.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if header != ["name"] or any(len(row) != 1 for row in rows):
            raise ValueError("not one column")
    except OSError as error:
        raise UserError(f"{listing}: cannot be read ({error.strerror}); `simclr embed` writes it") from error
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError too
        raise UserError(f"{listing}: damaged, or not the names that `simclr embed` wrote") from error
    if not 0 < len(h) == len(rows):
        raise UserError(f"{path}: has representations of {len(h)} images, but {listing} names {len(rows)}")
    return FeatureTable([name for (name,) in rows], h)
