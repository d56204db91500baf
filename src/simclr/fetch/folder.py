"""A folder of the user's own images, which stay where they are: only their paths and digests are written."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from simclr import parallel, raw
from simclr.batches import prefetched
from simclr.failure import UserError
from simclr.images import decode
from simclr.report import progress

NAMED = 20  # unreadable files that the error names


def bring(root: Path, output: Path) -> raw.Dataset:
    """Check every image below `root` and write the index of each split to `output`.

    `root` holds train/<class>/* and test/<class>/*; val/ is the test split where there is no test/, else the
    validation split; unlabelled/ is optional. Images may lie deeper and links are followed; hidden files and
    files without the suffix of an image format are left out. Classes and files are sorted by name.

    Raises:
        UserError: a folder is missing or empty, a class is not in train, or images are unreadable (all named).
    """
    folders = {"train": root / "train", "test": root / "test"}
    if (root / "val").is_dir():
        folders["val" if folders["test"].is_dir() else "test"] = root / "val"
    for folder in folders.values():
        if not folder.is_dir():
            needed = "train/<class>/* and test/<class>/* (or val/)"
            raise UserError(f"{folder}: no such folder; {root} must hold {needed}")
    classes = _classes(folders["train"])
    samples = {split: _labelled(folder, classes) for split, folder in folders.items()}
    if (root / "unlabelled").is_dir():
        samples["unlabelled"] = [(path, raw.UNLABELLED) for path in _images(root / "unlabelled")]

    digests = iter(_digests([path for pairs in samples.values() for path, _ in pairs]))
    splits: dict[str, raw.Split] = {}
    for split, pairs in samples.items():
        paths = [os.path.relpath(path, root) for path, _ in pairs]
        labels = np.array([label for _, label in pairs], np.int64)
        files = raw.Files(root, paths, [next(digests) for _ in pairs], labels)
        splits[split] = raw.write_files(output, split, files)
    return raw.Dataset("folder", classes, splits)


def _classes(folder: Path) -> list[str]:
    """The names of the class folders in `folder`."""
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    names = [entry.name for entry in visible if entry.is_dir()]
    stray = [entry.name for entry in visible if not entry.is_dir() and _is_image(entry.name)]
    if stray or not names:
        wrong = f"{stray[0]} lies in no class folder" if stray else "holds no class folders"
        raise UserError(f"{folder}: {wrong}; images belong in {folder}/<class>/")
    return names


def _labelled(folder: Path, classes: list[str]) -> list[tuple[str, int]]:
    """(path, index into `classes`) of every image of the split in `folder`."""
    here = set(_classes(folder))
    if unknown := sorted(here.difference(classes)):
        raise UserError(f"{folder}: has classes that train has not: {', '.join(unknown)}")
    return [(path, label) for label, name in enumerate(classes) if name in here for path in _images(folder / name)]


def _images(folder: Path) -> list[str]:
    """The sorted paths of all image files in and below `folder`."""
    paths: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        if any(os.path.samefile(parent, above) for above in Path(parent).parents):
            raise UserError(f"{parent}: a link to a folder that it lies in")
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [os.path.join(parent, name) for name in files if _is_image(name)]
    if not paths:
        raise UserError(f"{folder}: holds no image files")
    return sorted(paths)


def _is_image(name: str) -> bool:
    """Whether `name` is not hidden and has the suffix of a format that Pillow opens."""
    kind = Image.registered_extensions().get(os.path.splitext(name)[1].lower())
    return kind in Image.OPEN and not name.startswith(".")


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _digests(paths: list[str]) -> list[str]:
    """The digest of every file, each of which has been decoded once."""
    results = []
    with progress.bar(len(paths), "file", "check images") as bar:
        for result in prefetched(_check, paths, parallel.THREADS):
            results.append(result)
            bar.update()
    bad = [str(result) for result in results if isinstance(result, UserError)]
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise UserError(f"{len(bad)} of {len(paths)} images are unreadable: {'; '.join(bad[:NAMED])}{more}")
    return [result for result in results if isinstance(result, str)]


def _check(path: str) -> str | UserError:
    if os.path.exists(path) and not os.path.isfile(path):
        return UserError(f"{path}: not a regular file")  # reading from a pipe would never end
    try:
        data = Path(path).read_bytes()
        decode(data, path)
    except OSError as error:
        return UserError(f"{path}: cannot be read ({error.strerror})")
    except UserError as error:
        return error
    return raw.digest(data)
