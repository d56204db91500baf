"""A folder of the user's own images, which stay in place: only their paths and digests are written.

DVC hashes the folder to decide whether fetch runs again, so files that DVC does not hash are refused.
"""

import difflib
import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter

from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.images import decode_image, source_images
from simclr.images.names import count_by_suffix, escape, is_image, list_unreadable, natural_key
from simclr.sources import FetchParams
from simclr.tracking import progress

NAMED = 20  # the most unknown classes, or empty class folders, in a message

_log = logging.getLogger(__name__)

Samples = list[tuple[str, int]]
"""Paths relative to the root, with labels."""


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    """Check every image below `parameters.folder`, the root, and write the index of each split to `output`.

    The root holds train/<class>/* and test/<class>/*; val/ is the test split where there is no test/, else the
    validation split; unlabelled/ is optional. Images may lie deeper. A root without any of train/, test/ and val/
    holds images without labels: one split, train, and no classes. Left out are hidden files and folders, files without
    the suffix of an image format, and class folders without files. Classes are in natural order (2 before 10) under the
    NFC form of their names, the files of each in the order of their names.

    Raises:
        UserError: a folder is missing or has no images, a class is not in train, images are unreadable (all named),
            or DVC would miss changes, because it ignores linked folders and what .dvcignore names.
    """
    root = Path(parameters.folder)
    reader = _Reader(root)
    if any((root / name).is_dir() for name in ("train", "test", "val")):
        classes, samples = _labelled_samples(root, reader)
    else:
        classes, samples = [], {"train": _unlabelled_samples(root, reader)}
        _log.info(f"{root}: there is no {root / 'train'}, so its images are taken without labels")
    with decode_image.accepting(truncated=parameters.truncated == "keep", megapixels=parameters.max_megapixels):
        digests = iter(_digests([str(root / path) for pairs in samples.values() for path, _ in pairs]))
    splits: dict[str, source_images.Split] = {}
    for split, pairs in samples.items():
        labels = np.array([label for _, label in pairs], np.int64)
        files = source_images.FileSplit(root, [path for path, _ in pairs], [next(digests) for _ in pairs], labels)
        splits[split] = source_images.write_files(output, split, files)
    if reader.others:
        _log.info(
            f"left out {len(reader.others)} files that are no images by their suffix: {count_by_suffix(reader.others)}"
        )
    if reader.empty:
        more = ", ..." if len(reader.empty) > NAMED else ""
        _log.info(
            f"left out {len(reader.empty)} empty class folders: {', '.join(map(escape, reader.empty[:NAMED]))}{more}"
        )
    return source_images.Dataset("folder", classes, splits)


def _unlabelled_samples(root: Path, reader: "_Reader") -> Samples:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder{_hint_at_original(root)}")
    paths = reader.images("")
    if not paths:
        raise UserError(
            f"{root}: holds neither train/<class>/* and test/<class>/* (or val/), nor images without labels, at any "
            f"depth{_hint_at_original(root)}"
        )
    return [(path, source_images.UNLABELLED) for path in paths]


def _labelled_samples(root: Path, reader: "_Reader") -> tuple[list[str], dict[str, Samples]]:
    """The classes, and the samples of each split."""
    folders = _split_folders(root)
    reader.admit("", [*folders.values(), *(["unlabelled"] if (root / "unlabelled").is_dir() else [])], [])
    labelled = {split: reader.classes(folder) for split, folder in folders.items()}
    classes = sorted(labelled["train"], key=natural_key)
    for split, folder in folders.items():
        if unknown := sorted(labelled[split].keys() - labelled["train"].keys()):
            names = ", ".join(_with_similar_class(name, classes) for name in unknown[:NAMED])
            more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
            raise UserError(f"{root / folder}: has classes that train has not: {names}{more}")
    samples = {
        split: [(path, label) for label, name in enumerate(classes) for path in paths.get(name, [])]
        for split, paths in labelled.items()
    }
    if (root / "unlabelled").is_dir():
        samples["unlabelled"] = [(path, source_images.UNLABELLED) for path in reader.images("unlabelled")]
        if not samples["unlabelled"]:
            raise UserError(f"{root / 'unlabelled'}: holds no image files")
    return classes, samples


def _split_folders(root: Path) -> dict[str, str]:
    """The folders in `root` of the labelled splits, by split."""
    folders = {"train": "train", "test": "test"}
    if (root / "val").is_dir():
        folders["val" if (root / "test").is_dir() else "test"] = "val"
    for folder in folders.values():
        if not (root / folder).is_dir():
            needed = f"{root} must hold train/<class>/* and test/<class>/* (or val/)"
            raise UserError(f"{root / folder}: no such folder; {needed}{_hint_at_original(root, folder)}")
    return folders


def _hint_at_original(root: Path, folder: str = "") -> str:
    """Under `dvc exp run --temp` and --queue, whose working directory is a copy: where the folder is."""
    original = Path(os.environ.get("DVC_ROOT", ".")).resolve() / root
    if original == root.resolve() or not (original / folder).is_dir():
        return ""
    return f"; this copy of the repository lacks what Git does not track: set fetch.folder={original}"


class _Reader:
    """Reads folders below `root`; all paths are relative to it.

    Attributes:
        others: files left out because of their suffix.
        empty: class folders left out because they have no files.
    """

    def __init__(self, root: Path) -> None:
        self.others: list[str] = []
        self.empty: list[str] = []
        self._root = root
        self._seen = DvcIgnoreFilter(localfs, os.getcwd())  # DVC starts stages in the root of the repository

    def classes(self, split: str) -> dict[str, list[str]]:
        """The images of each class of `split`, under the NFC form of its name."""
        here = self._root / split
        folders, stray = self._entries(split)
        if stray:
            raise UserError(f"{here}: {escape(stray[0])} lies in no class folder; images belong in {here}/<class>/")
        paths_by_class: dict[str, list[str]] = {}
        spelled: dict[str, str] = {}
        for folder in folders:
            name = unicodedata.normalize("NFC", folder)
            if name in spelled:
                both = f"{spelled[name]!a} and {folder!a}"
                raise UserError(f"{here}: two spellings of the class {name}, {both}, which Unicode holds to be one")
            spelled[name] = folder
            path = os.path.join(split, folder)
            others = len(self.others)
            if paths := self.images(path):
                paths_by_class[name] = paths
            elif skipped := self.others[others:]:
                raise UserError(f"{self._root / path}: holds no image files, but {count_by_suffix(skipped)}")
            else:
                self.empty.append(path)
        if not paths_by_class:
            raise UserError(f"{here}: holds no class folders with images; images belong in {here}/<class>/")
        return paths_by_class

    def images(self, folder: str) -> list[str]:
        """The sorted paths of all image files in and below `folder`."""
        paths: list[str] = []
        pending = [folder]
        while pending:
            parent = pending.pop()
            folders, names = self._entries(parent)
            pending += [os.path.join(parent, name) for name in folders]
            paths += [os.path.join(parent, name) for name in names]
        return sorted(paths)

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """The sorted names of the folders and of the image files in `folder`."""
        try:
            with os.scandir(self._root / folder) as entries:
                visible = {entry.name: entry.is_dir() for entry in entries if not entry.name.startswith(".")}
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        folders = sorted(name for name, is_folder in visible.items() if is_folder)
        files = sorted(visible.keys() - folders)
        self.others += [os.path.join(folder, name) for name in files if not is_image(name)]
        images = [name for name in files if is_image(name)]
        self.admit(folder, folders, images)
        return folders, images

    def admit(self, folder: str, folders: list[str], files: list[str]) -> None:
        """Refuse those of the `folders` and `files` in `folder` that DVC does not hash, or cannot.

        Call it for a folder before its subfolders, because DVC's rules for a folder depend on those above it.
        """
        here = self._root / folder
        for name in [*folders, *files]:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{escape(str(here / name))}: the name is not UTF-8; rename it") from error
        for name in folders:
            if os.path.islink(here / name):
                raise UserError(
                    f"{here / name}: a linked folder, behind which DVC sees no change; name the real one "
                    "in fetch.folder, or link its files one by one (cp -rs)"
                )
        seen = {name for names in self._seen(str(here), folders, files) for name in names}
        for name in [*folders, *files]:
            if name not in seen:
                raise UserError(
                    f"{here / name}: DVC ignores it, by a line of .dvcignore or as a DVC repository of its own, "
                    "and would not notice a change"
                )


def _with_similar_class(name: str, classes: list[str]) -> str:
    """The class `name`, with the most similar one of `classes`."""
    near = difflib.get_close_matches(name, classes, n=1)
    return f"{name!a} (train has {near[0]!a})" if near else escape(name)


def _digests(paths: list[str]) -> list[str]:
    """The digests of all files, after decoding each of them."""
    results = []
    with progress.bar(len(paths), "file", "check images") as bar:
        for result in prefetch(_check, paths, thread_pool.THREADS):
            results.append(result)
            bar.update()
    bad = [str(result) for result in results if isinstance(result, UserError)]
    if bad:
        raise UserError(list_unreadable(bad, len(paths)))
    return [result for result in results if isinstance(result, str)]


def _check(path: str) -> str | UserError:
    if os.path.exists(path) and not os.path.isfile(path):
        return UserError(f"{path}: not a regular file")  # reading from a pipe would never end
    try:
        data = Path(path).read_bytes()
        decode_image.decode(data, path)
    except OSError as error:
        return UserError(f"{path}: cannot be read ({error.strerror})")
    except UserError as error:
        return error
    return source_images.digest(data)
