"""Download, unpacking and torchvision's parsers, for sources on the web."""

import shutil
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from gzip import BadGzipFile
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import numpy.typing as npt
from torchvision.datasets.utils import download_url

from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.images import source_images

TIMEOUT = 60.0  # seconds without a byte from the server; torchvision has no limit


class ParsedSplit(NamedTuple):
    """One split: `images` (N, H, W, 3) uint8, `labels` (N,), and the names of all classes."""

    split: str
    classes: list[str]
    images: Pixels
    labels: npt.ArrayLike


def write(source: str, parts: Iterable[ParsedSplit], output: Path) -> source_images.Dataset:
    """Write the splits of `source` to `output`, one after another: the largest of stl10 has 2.7 GB.

    Raises:
        UserError: raised by `parts`; names the source.
    """
    classes: list[str] = []
    splits: dict[str, source_images.Split] = {}
    try:
        for part in parts:
            classes = part.classes
            splits[part.split] = source_images.write_arrays(output, part.split, part.images, part.labels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return source_images.Dataset(source, classes, splits)


def download(url: str, md5: str, file: Path) -> Path:
    """Download `url` to `file`, and return it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        download_url(url, file.parent, file.name, md5)
    except RuntimeError as error:
        raise UserError(f"{url}: what arrived is incomplete or changed (its MD5 is not {md5})") from error
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise UserError(f"{url}: cannot be downloaded ({error})") from error
    finally:
        socket.setdefaulttimeout(before)
    return file


def unpack_tar(archive: Path) -> None:
    """Unpack the files of a tar `archive` beside it, none of them elsewhere, and remove it.

    `tarfile` checks members only since Python 3.11.4 and with a filter, which torchvision does not set.
    """
    inside = archive.parent.resolve()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                target = (inside / member.name).resolve()
                if not target.is_relative_to(inside) or not (member.isfile() or member.isdir()):
                    raise UserError(f"{archive.name}: its member {member.name} is unsafe to unpack")
                if content := tar.extractfile(member):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{archive.name}: the archive is damaged ({error})") from error
    archive.unlink()


def unpack_zip(archive: Path) -> None:
    """Unpack the files of a zip `archive` beside it, none of them elsewhere, and remove it."""
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(archive.parent)  # zipfile keeps every member inside the folder
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive.name}: the archive is damaged ({error})") from error
    archive.unlink()


def parse(kind: Any, address: str, downloads: Path, **arguments: Any) -> Any:
    """torchvision's data set `kind` from the files in `downloads`."""
    try:
        return kind(downloads, **arguments)
    except (RuntimeError, FileNotFoundError, BadGzipFile, EOFError, KeyError, ValueError, zlib.error) as error:
        raise UserError(f"{address}: its content is damaged ({error})") from error


def cifar_parts(kind: Any, downloads: Path) -> Iterator[ParsedSplit]:
    """The splits of CIFAR-10 or CIFAR-100, whose class in torchvision is `kind`."""
    unpack_tar(download(kind.url, kind.tgz_md5, downloads / kind.filename))
    for split in ("train", "test"):
        data = parse(kind, kind.url, downloads, train=split == "train")
        yield ParsedSplit(split, data.classes, data.data, data.targets)
