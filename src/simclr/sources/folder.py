"""A folder of the user's own images, which stay in place: only their paths and digests are written."""

import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.images import decode_image, file_list, source_images
from simclr.images.folder_reader import FolderReader
from simclr.images.image_tree import DiskTree, ImageTree, ListedTree
from simclr.images.names import NAMED, but_others, count_by_suffix, list_names, list_unreadable, natural_key
from simclr.sources import FetchParams
from simclr.tracking import progress

_LABELLED = ("train", "test", "val")
_FOLDERS = (*_LABELLED, "unlabelled")

_log = logging.getLogger(__name__)

Samples = list[tuple[str, int]]
"""Paths relative to the root, with labels."""


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    """Check every image below `parameters.folder`, the root, and write the index of each split to `output`.

    If it is a file, it is a list of images (`file_list`), whose folder is the root.

    The root holds train/<class>/* and test/<class>/*; val/ is the test split where there is no test/, else the
    validation split; unlabelled/ is optional. Images may lie deeper. A root without any of train/, test/ and val/
    holds images without labels: one split, train, and no classes. Left out are hidden files and folders, files without
    the suffix of an image format, class folders without files, and what lies beside train/ and the like. Classes are in
    natural order (2 before 10) under the NFC form of their names, the files of each in the order of their names.

    Raises:
        UserError: a folder is missing or has no images, a class is not in train, images are unreadable or not those of
            the list (all named), or DVC would miss changes, as it ignores linked folders and what .dvcignore names.
    """
    origin = Path(parameters.folder)
    listed = file_list.read(origin) if origin.is_file() else None
    if listed and not listed.root.is_dir():
        raise UserError(f"{origin}: its folder {listed.root} is gone; make a list of the new one with `simclr list`")
    reader = FolderReader(ListedTree(listed) if listed else DiskTree(origin))
    root = reader.tree.root
    try:
        classes, samples = _samples(reader)
    except UserError as error:
        raise (UserError(f"{origin}: {error}") if listed else error) from None
    with decode_image.accepting(truncated=parameters.truncated == "keep", megapixels=parameters.max_megapixels):
        paths = [path for pairs in samples.values() for path, _ in pairs]
        try:
            digests = _digests([str(root / path) for path in paths])
        except UserError as error:
            gone = any(not (root / path).exists() for path in paths)
            anew = "; make it anew with `simclr list`" if gone else ""  # which cures no damaged image
            raise (UserError(f"{origin}: {error}{anew}") if listed else error) from None
    if listed:
        _check_digests(origin, listed, dict(zip(paths, digests, strict=True)))
    remaining = iter(digests)
    splits: dict[str, source_images.Split] = {}
    for split, pairs in samples.items():
        labels = np.array([label for _, label in pairs], np.int64)
        files = source_images.FileSplit(root, [path for path, _ in pairs], [next(remaining) for _ in pairs], labels)
        splits[split] = source_images.write_files(output, split, files)
    for what, names in {
        "no images by their suffix": count_by_suffix(reader.others),
        "empty class folders": list_names(reader.empty),
        f"in none of {', '.join(_FOLDERS)}": list_names(reader.beside),
    }.items():
        if names:
            _log.info(f"left out, {what}: {names}")
    return source_images.Dataset("folder", classes, splits)


def _check_digests(origin: Path, listed: file_list.FileList, digests: Mapping[str, str]) -> None:
    """Compare the `digests` of files by their path with those of the list `origin`."""
    changed = [path for path, digest in digests.items() if digest != listed.digests[path]]
    if changed:
        raise UserError(
            f"{origin}: {len(changed)} of its {len(digests)} images have changed since it was made, such as "
            f"{listed.root / changed[0]}; make it anew with `simclr list`"
        )


def _samples(reader: FolderReader) -> tuple[list[str], dict[str, Samples]]:
    """The classes, none of images without labels, and the samples of each split."""
    tree, root = reader.tree, reader.tree.root
    if any(map(tree.has_folder, _LABELLED)):
        return _labelled_samples(root, reader)
    samples = _unlabelled_samples(root, reader)
    above = f"; with fetch.folder: {root.parent} they have some" if root.name in _LABELLED else ""
    _log.info(f"{root}: there is no {root / 'train'}, so its images are taken without labels{above}")
    return [], {"train": samples}


def _unlabelled_samples(root: Path, reader: FolderReader) -> Samples:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder, nor a list of files{_hint_at_original(root)}")
    paths = reader.images("")
    if not paths:
        raise UserError(
            f"{root}: holds neither train/<class>/* and test/<class>/* (or val/), nor images without labels, at any "
            f"depth{but_others(reader.others)}{_hint_at_original(root)}"
        )
    return [(path, source_images.UNLABELLED) for path in paths]


def _labelled_samples(root: Path, reader: FolderReader) -> tuple[list[str], dict[str, Samples]]:
    """The classes, and the samples of each split."""
    tree = reader.tree
    folders, has_unlabelled = _split_folders(tree), tree.has_folder("unlabelled")
    tree.admit("", [*folders.values(), *(["unlabelled"] if has_unlabelled else [])], [])
    reader.find_beside(_FOLDERS)
    labelled = {split: reader.classes(folder) for split, folder in folders.items()}
    classes = sorted(labelled["train"], key=natural_key)
    for split, folder in folders.items():
        if unknown := sorted(labelled[split].keys() - labelled["train"].keys()):
            similar = [_with_similar_class(name, classes) for name in unknown[:NAMED]]  # which takes a while of many
            names = list_names([*similar, *unknown[NAMED:]])
            raise UserError(f"{root / folder}: has classes that train has not: {names}")
    samples = {
        split: [(path, label) for label, name in enumerate(classes) for path in paths.get(name, [])]
        for split, paths in labelled.items()
    }
    if has_unlabelled:
        others = len(reader.others)
        samples["unlabelled"] = [(path, source_images.UNLABELLED) for path in reader.images("unlabelled")]
        if not samples["unlabelled"]:
            raise UserError(f"{root / 'unlabelled'}: holds no image files{but_others(reader.others[others:])}")
    return classes, samples


def _split_folders(tree: ImageTree) -> dict[str, str]:
    """The folders in the root of `tree` of the labelled splits, by split."""
    root, folders = tree.root, {"train": "train", "test": "test"}
    if tree.has_folder("val"):
        folders["val" if tree.has_folder("test") else "test"] = "val"
    for folder in folders.values():
        if not tree.has_folder(folder):
            needed = f"{root} must hold train/<class>/* and test/<class>/* (or val/)"
            raise UserError(f"{root / folder}: no such folder; {needed}{_hint_at_original(root, folder)}")
    return folders


def _hint_at_original(root: Path, folder: str = "") -> str:
    """Under `dvc exp run --temp` and --queue, whose working directory is a copy: where the folder is."""
    original = Path(os.environ.get("DVC_ROOT", ".")).resolve() / root
    if original == root.resolve() or not (original / folder).is_dir():
        return ""
    return f"; this copy of the repository lacks what Git does not track: set fetch.folder={original}"


def _with_similar_class(name: str, classes: list[str]) -> str:
    """The class `name`, with the most similar one of `classes`."""
    near = difflib.get_close_matches(name, classes, n=1)
    return f"{name!a} (train has {near[0]!a})" if near else name


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
