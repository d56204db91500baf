"""The images in the folders of splits and classes, and what is left out there."""

import os
import unicodedata
from collections.abc import Sequence

from simclr.core.errors import UserError
from simclr.images.image_tree import ImageTree
from simclr.images.names import but_others, escape, is_image


class FolderReader:
    """Reads the folders of `tree`; all paths are relative to its root.

    Attributes:
        others: files left out because of their suffix.
        empty: class folders left out because they have no files.
        beside: folders and images left out because they lie beside train/ and the like.
    """

    def __init__(self, tree: ImageTree) -> None:
        self.tree = tree
        self.others: list[str] = []
        self.empty: list[str] = []
        self.beside: list[str] = []
        self._root = tree.root

    def classes(self, split: str) -> dict[str, list[str]]:
        """The images of each class of `split`, under the NFC form of its name."""
        here = self._root / split
        folders, stray = self._entries(split)
        if stray:
            raise UserError(f"{here}: {escape(stray[0])} lies in no class folder; images belong in {here}/<class>/")
        paths_by_class: dict[str, list[str]] = {}
        spelled: dict[str, str] = {}
        for folder in folders:
            if "\n" in folder or "\r" in folder:  # a class is a row of tables
                raise UserError(f"{here}: the name of the class {escape(folder)} has a line break; rename it")
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
                raise UserError(f"{self._root / path}: holds no image files{but_others(skipped)}")
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

    def find_beside(self, splits: Sequence[str]) -> None:
        """Note the images and folders that lie in the root beside the folders of the `splits`."""
        folders, files = self.tree.entries("")
        self.beside = [*filter(is_image, files), *(f"{name}/" for name in folders if name not in splits)]

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """The sorted names of the folders and of the image files in `folder`."""
        folders, files = self.tree.entries(folder)
        self.others += [os.path.join(folder, name) for name in files if not is_image(name)]
        images = [name for name in files if is_image(name)]
        self.tree.admit(folder, folders, images)
        return folders, images
