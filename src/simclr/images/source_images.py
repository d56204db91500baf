"""The folder of raw images that `fetch` writes and `convert` reads.

    dataset.json            source, classes, and per split how it is stored and how many images it has
    <split>.labels.npy      (N,) int64, index into the classes; -1 where unlabelled
    <split>.images.npy      storage "arrays": (N, H, W, 3) uint8
    <split>.files.jsonl     storage "files": [path, digest] per line; the images stay where they are

Splits: train and test; val and unlabelled are optional. Images without labels are one split, train, without classes.
Equal images give equal bytes, and a changed image file has another digest, so that DVC sees the change.
"""

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from simclr.core import npy_file
from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.images.decode_image import decode, plain_jpeg

Labels = npt.NDArray[np.int64]
UNLABELLED = -1
_AGAIN = "run `dvc repro` again (where fetch.folder is a list, after `simclr list`, which makes it anew)"


class Jpeg(NamedTuple):
    """A JPEG file that can be stored unchanged (see `decode_image.plain_jpeg`); sizes in pixels."""

    data: bytes
    height: int
    width: int


@dataclass(frozen=True)
class ArraySplit:
    """Images of one size: `images` (N, H, W, 3) uint8, memory-mapped, and `labels` (N,)."""

    images: Pixels
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Pixels:
        """Image `index` as (H, W, 3) uint8. Thread-safe."""
        image: Pixels = self.images[index]
        return image


@dataclass(frozen=True)
class FileSplit:
    """Image files `paths` (N, relative to `root`) with their `digests` (N) and `labels` (N,)."""

    root: Path
    paths: list[str]
    digests: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Pixels | Jpeg:
        """Image `index`: the file itself if it is a plain JPEG, else its (H, W, 3) uint8 pixels. Thread-safe.

        Raises:
            UserError: the file is gone, or has changed since `fetch`.
        """
        path = self.root / self.paths[index]
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: is gone since fetch; {_AGAIN}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if digest(data) != self.digests[index]:
            raise UserError(f"{path}: has changed since fetch; {_AGAIN}")
        size = plain_jpeg(data)
        return Jpeg(data, *size) if size else decode(data, str(path))


Split = ArraySplit | FileSplit


@dataclass(frozen=True)
class Dataset:
    """The source of the images, the names of the classes, and the splits by name."""

    source: str
    classes: list[str]
    splits: dict[str, Split]


def digest(data: bytes) -> str:
    """The digest of a file in the index: 128 bits of BLAKE2b in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_arrays(folder: Path, name: str, images: Pixels, labels: npt.ArrayLike) -> ArraySplit:
    """Write the split `name`: `images` (N, H, W, 3) in any memory layout, `labels` (N,). Return it memory-mapped."""
    npy_file.write(folder / f"{name}.images.npy", images)
    npy_file.write(folder / f"{name}.labels.npy", np.asarray(labels, np.int64))
    return _open_arrays(folder, name)


def write_files(folder: Path, name: str, files: FileSplit) -> FileSplit:
    """Write the index of the split `name`, and return it."""
    with (folder / f"{name}.files.jsonl").open("w", encoding="ascii", newline="\n") as index:
        index.writelines(json.dumps(entry) + "\n" for entry in zip(files.paths, files.digests, strict=True))
    npy_file.write(folder / f"{name}.labels.npy", files.labels)
    return files


def write_dataset(folder: Path, dataset: Dataset) -> None:
    """Write dataset.json, the last file, once the splits are in `folder`."""
    assert _are_splits(dataset.splits.keys(), bool(dataset.classes))
    splits = {name: _entry(split) for name, split in dataset.splits.items()}
    content = {"source": dataset.source, "classes": dataset.classes, "splits": splits}
    (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")


def open_dataset(folder: Path) -> Dataset:
    """The data set in `folder`; arrays are mapped into memory, not read.

    Raises:
        UserError: something in `folder` is missing or damaged.
    """
    try:
        content = json.loads((folder / "dataset.json").read_text(encoding="ascii"))
        classes = content["classes"]
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise TypeError("classes")
        if not _are_splits(content["splits"].keys(), bool(classes)):
            raise ValueError(f"its splits are {', '.join(content['splits']) or 'none'}")
        splits = {name: _open(folder, name, entry) for name, entry in content["splits"].items()}
        for name, split in splits.items():
            _check_labels(split.labels, 0 if name == "unlabelled" else len(classes), name)
        return Dataset(content["source"], classes, splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder}: missing or damaged ({error}); `dvc repro fetch` writes it anew") from error


def _are_splits(names: Set[str], labelled: bool) -> bool:
    needed = {"train", "test"} if labelled else {"train"}
    return needed <= names <= {"train", "val", "test", "unlabelled"}


def _entry(split: Split) -> dict[str, str | int]:
    if isinstance(split, ArraySplit):
        return {"storage": "arrays", "count": len(split)}
    return {"storage": "files", "count": len(split), "root": str(split.root)}


def _open(folder: Path, name: str, entry: dict[str, str | int]) -> Split:
    split: Split
    if entry["storage"] == "arrays":
        split = _open_arrays(folder, name)
        count = len(split.images)
    else:
        lines = (folder / f"{name}.files.jsonl").read_text(encoding="ascii").splitlines()
        paths, digests = map(list, zip(*map(json.loads, lines), strict=True))
        split = FileSplit(Path(str(entry["root"])), paths, digests, _open_labels(folder, name))
        count = len(paths)
    if not count == len(split) == entry["count"]:
        raise ValueError(f"{name} has {count} images and {len(split)} labels, not {entry['count']}")
    return split


def _check_labels(labels: Labels, classes: int, name: str) -> None:
    lowest = 0 if classes else UNLABELLED
    if labels.size and not (lowest <= labels.min() and labels.max() < classes):
        raise ValueError(f"labels of {name} are not those of {classes} classes")


def _open_arrays(folder: Path, name: str) -> ArraySplit:
    images = open_memmap(folder / f"{name}.images.npy", mode="r")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images of {name} are {images.dtype} of shape {images.shape}, not uint8 of (N, H, W, 3)")
    return ArraySplit(images, _open_labels(folder, name))


def _open_labels(folder: Path, name: str) -> Labels:
    labels = np.array(open_memmap(folder / f"{name}.labels.npy", mode="r"))
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise ValueError(f"labels of {name} are {labels.dtype} of shape {labels.shape}, not int64 of (N,)")
    return labels
