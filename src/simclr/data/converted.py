"""The folder that convert writes and the later stages read: a .beton for each split, and what holds for all."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from simclr.core.errors import UserError
from simclr.data import beton


@dataclass(frozen=True)
class DatasetInfo:
    """What holds for all splits."""

    classes: list[str]
    """The names of the labels 0, 1, ..."""
    mean: list[float]
    """Of each channel over the training split, values from 0 to 1."""
    std: list[float]
    digests: dict[str, str]
    """SHA-256 of each split's .beton, in hexadecimal: to tell data apart without reading them."""


_DESCRIPTION = "dataset.json"


def split_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.beton"


def has_split(folder: Path, split: str) -> bool:
    return split_path(folder, split).exists()


def describe(folder: Path, description: DatasetInfo) -> None:
    """Write `description` into `folder`."""
    text = json.dumps(dataclasses.asdict(description), indent=2)
    (folder / _DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def description(folder: Path) -> DatasetInfo:
    """What `describe` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / _DESCRIPTION
    try:
        return DatasetInfo(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); the convert stage writes it") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged; the convert stage writes it") from error


def open_split(folder: Path, split: str) -> beton.Beton:
    """The .beton of `split`: train, val, test or unlabelled.

    Raises:
        UserError: there is none, it is damaged, or it is that of another data set.
    """
    path = split_path(folder, split)
    if not has_split(folder, split):
        found = ", ".join(sorted(path.stem for path in folder.glob("*.beton"))) or "none"
        raise UserError(f"{path}: this data set has no {split} split; there are: {found}")
    opened = beton.read(path)
    classes, lowest = len(description(folder).classes), -1 if split == "unlabelled" else 0
    if opened.labels.min() < lowest or opened.labels.max() >= classes:
        raise UserError(f"{path}: its labels are not those of {folder / _DESCRIPTION}; run convert again")
    return opened
