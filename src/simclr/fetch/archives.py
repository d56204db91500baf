"""The data sets that torchvision knows: its addresses, its checksums and its parsers."""

import shutil
import socket
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from gzip import BadGzipFile
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

import numpy as np
import numpy.typing as npt
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN, FashionMNIST
from torchvision.datasets.utils import download_url

from simclr import raw
from simclr.failure import UserError
from simclr.images import Pixels

TIMEOUT = 60.0  # seconds without a byte from the server; torchvision itself waits for ever


class Part(NamedTuple):
    """One split: `images` (N, H, W, 3) uint8, `labels` (N,), and the names of all classes."""

    split: str
    classes: list[str]
    images: Pixels
    labels: npt.ArrayLike


def bring(source: str, output: Path) -> raw.Dataset:
    """Download `source`, one of `SOURCES`, and write its splits to `output`, where the archives do not stay.

    Raises:
        UserError: names the source and the address that cannot be reached, or the file that is damaged.
    """
    downloads = output / "downloads"
    classes: list[str] = []
    splits: dict[str, raw.Split] = {}
    try:
        for part in SOURCES[source](downloads):  # one split in memory at a time: stl10's largest has 2.7 GB
            classes = part.classes
            splits[part.split] = raw.write_arrays(output, part.split, part.images, part.labels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    shutil.rmtree(downloads)
    return raw.Dataset(source, classes, splits)


def _cifar(kind: Any, downloads: Path) -> Iterator[Part]:
    _unpack(_download(kind.url, kind.tgz_md5, downloads / kind.filename))
    for split in ("train", "test"):
        data = _parse(kind, kind.url, downloads, train=split == "train")
        yield Part(split, data.classes, data.data, data.targets)


def _stl10(downloads: Path) -> Iterator[Part]:
    _unpack(_download(STL10.url, STL10.tgz_md5, downloads / STL10.filename))
    for split, name in {"train": "train", "test": "test", "unlabelled": "unlabeled"}.items():
        data = _parse(STL10, STL10.url, downloads, split=name)
        yield Part(split, data.classes, data.data.transpose(0, 2, 3, 1), data.labels)


def _svhn(downloads: Path) -> Iterator[Part]:
    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        _download(url, md5, downloads / filename)
        data = _parse(SVHN, url, downloads, split=split)
        yield Part(split, [str(digit) for digit in range(10)], data.data.transpose(0, 2, 3, 1), data.labels)


def _fashion_mnist(downloads: Path) -> Iterator[Part]:
    [mirror] = FashionMNIST.mirrors
    for filename, md5 in FashionMNIST.resources:
        _download(mirror + filename, md5, downloads / "FashionMNIST" / "raw" / filename)
    for split in ("train", "test"):
        data = _parse(FashionMNIST, mirror, downloads, train=split == "train", download=True)  # unpacks
        grey = data.data.numpy()
        yield Part(split, data.classes, np.broadcast_to(grey[:, :, :, None], (*grey.shape, 3)), data.targets)


SOURCES: dict[str, Callable[[Path], Iterator[Part]]] = {
    "cifar10": partial(_cifar, CIFAR10),
    "cifar100": partial(_cifar, CIFAR100),
    "stl10": _stl10,
    "svhn": _svhn,
    "fashion_mnist": _fashion_mnist,
}


def _download(url: str, md5: str, file: Path) -> Path:
    """Bring `url` to `file`, which is returned."""
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


def _unpack(archive: Path) -> None:
    """Unpack the files of a tar `archive` beside it, none of them elsewhere, and remove it.

    `tarfile` checks members only since Python 3.11.4, and only when asked; torchvision does not ask.
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


def _parse(kind: Any, address: str, downloads: Path, **arguments: Any) -> Any:
    """torchvision's data set `kind` from the files in `downloads`."""
    try:
        return kind(downloads, **arguments)
    except (RuntimeError, FileNotFoundError, BadGzipFile, EOFError, KeyError, ValueError, zlib.error) as error:
        raise UserError(f"{address}: its content is damaged ({error})") from error
