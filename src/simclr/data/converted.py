"""The folder that convert writes and the later stages read: a .beton for each split, and facts on the data set."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simclr.core import channels
from simclr.core.errors import UserError
from simclr.data import beton
from simclr.data.joined import join


@dataclass(frozen=True)
class DatasetInfo:
    """Facts on the whole data set, in dataset.json."""

    classes: list[str]
    """The names of the labels 0, 1, ...; empty for images without labels."""
    mean: list[float]
    """Mean of each channel over the training split, of values from 0 to 1."""
    std: list[float]
    """Standard deviation, likewise."""
    digests: dict[str, str]
    """SHA-256 of each split's .beton, in hexadecimal, which identifies the data without reading them."""

    @property
    def labelled(self) -> bool:
        return bool(self.classes)


ALL = "all"
"""The split of all labelled images that are not for test: those of train, then those of val."""
_INFO = "dataset.json"


def split_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.beton"


def files_of(split: str) -> tuple[str, ...]:
    """The splits that have a file of their own, of which `split` consists."""
    return ("train", "val") if split == ALL else (split,)


def has_split(folder: Path, split: str) -> bool:
    return all(split_path(folder, name).exists() for name in files_of(split))


def save_info(folder: Path, info: DatasetInfo) -> None:
    """Write `info` into `folder`."""
    text = json.dumps(dataclasses.asdict(info), indent=2)
    (folder / _INFO).write_text(text + "\n", encoding="utf-8")


def load_info(folder: Path) -> DatasetInfo:
    """Read the info that `save_info` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder / _INFO
    try:
        info = DatasetInfo(**json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(info.classes, list) or not all(isinstance(name, str) for name in info.classes):
            raise TypeError("classes")
        if not channels.can_normalise(info.mean, info.std):
            raise TypeError("mean or std")
        if not isinstance(info.digests, dict) or not all(isinstance(digest, str) for digest in info.digests.values()):
            raise TypeError("digests")
        return info
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); the convert stage writes it") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged; the convert stage writes it") from error


def save_names(folder: Path, split: str, names: Iterable[str]) -> None:
    """Write the paths of the images of `split`, in their order, into `folder`: of images that are files."""
    with _names_path(folder, split).open("w", encoding="ascii", newline="\n") as file:
        file.writelines(f"{json.dumps(name)}\n" for name in names)


def load_names(folder: Path, split: str) -> list[str]:
    """What `save_names` wrote.

    Raises:
        UserError: the file is missing, since the images are no files, or damaged.
    """
    path = _names_path(folder, split)
    try:
        names = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the convert stage writes it for fetch.source: folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged; the convert stage writes it") from error
    if len(names) != len(open_split(folder, split)) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: damaged; the convert stage writes it")
    return names


def _names_path(folder: Path, split: str) -> Path:
    return folder / f"{split}.names.jsonl"


def open_split(folder: Path, split: str) -> beton.Beton:
    """Open the .beton of `split`: train, val, test or unlabelled; or of `ALL`, two files as one.

    Raises:
        UserError: the split does not exist, is damaged, or belongs to another data set.
    """
    if split == ALL:
        return join(*(open_split(folder, name) for name in files_of(ALL)))
    path = split_path(folder, split)
    if not has_split(folder, split):
        splits = ", ".join(sorted(path.stem for path in folder.glob("*.beton"))) or "none"
        raise UserError(f"{path}: this data set has no {split} split; there are: {splits}")
    split_file = beton.read(path)
    info = load_info(folder)
    if split not in info.digests:
        raise UserError(f"{folder / _INFO}: has no digest of the {split} split; run convert again")
    classes = len(info.classes)
    lowest = -1 if split == "unlabelled" or not classes else 0
    if split_file.labels.min() < lowest or split_file.labels.max() >= classes:
        raise UserError(f"{path}: its labels are not those of {folder / _INFO}; run convert again")
    return split_file
