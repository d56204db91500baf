"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 images of 32 px."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simclr.sources import _archives
from simclr.sources._archives import Part


def parts(kind: Any, downloads: Path) -> Iterator[Part]:
    """The splits of `kind`, torchvision's class."""
    _archives.unpack_tar(_archives.download(kind.url, kind.tgz_md5, downloads / kind.filename))
    for split in ("train", "test"):
        data = _archives.parse(kind, kind.url, downloads, train=split == "train")
        yield Part(split, data.classes, data.data, data.targets)
