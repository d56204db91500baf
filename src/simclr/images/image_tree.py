"""Folders of image files: on the disk, or as a list names them."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Protocol

from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter

from simclr.core.errors import UserError
from simclr.images.file_list import FileList
from simclr.images.names import escape, visible


class ImageTree(Protocol):
    """Folders and files below `root`; all paths are relative to it."""

    root: Path

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """The sorted names of the folders and of the files in `folder`, without hidden ones.

        Raises:
            UserError: it cannot be read.
        """
        ...

    def has_folder(self, folder: str) -> bool: ...

    def admit(self, folder: str, folders: list[str], files: list[str]) -> None:
        """Refuse those of the `folders` and `files` in `folder` of which a change would not be noticed.

        Call it for a folder before its subfolders.

        Raises:
            UserError: names the first.
        """
        ...


class DiskTree:
    """The files on the disk. DVC hashes them to decide whether fetch runs again, so `admit` refuses those that DVC does
    not hash, or cannot. See `ImageTree`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen = DvcIgnoreFilter(localfs, os.getcwd())  # DVC starts stages in the root of the repository

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        try:
            entries = visible(self.root / folder)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        folders = sorted(name for name, is_folder in entries.items() if is_folder)
        return folders, sorted(entries.keys() - folders)

    def has_folder(self, folder: str) -> bool:
        return (self.root / folder).is_dir()

    def admit(self, folder: str, folders: list[str], files: list[str]) -> None:
        # DVC's rules for a folder depend on those above it
        here = self.root / folder
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


class ListedTree:
    """The files of `listed`, whose digests tell a change: see `ImageTree`."""

    def __init__(self, listed: FileList) -> None:
        self.root = listed.root
        self._folders: dict[str, set[str]] = defaultdict(set)
        self._files: dict[str, set[str]] = defaultdict(set)
        for path in listed.digests:
            if any(part.startswith(".") for part in path.split("/")):
                continue
            folder, name = os.path.split(path)
            self._files[folder].add(name)
            while folder:
                parent, name = os.path.split(folder)
                self._folders[parent].add(name)
                folder = parent

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        return sorted(self._folders[folder]), sorted(self._files[folder])

    def has_folder(self, folder: str) -> bool:
        return folder in self._files or folder in self._folders

    def admit(self, folder: str, folders: list[str], files: list[str]) -> None:
        pass
