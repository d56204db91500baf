"""Street View House Numbers (Netzer et al. 2011): 99,289 images of 32 px."""

from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets import SVHN

from simclr.images import source_images
from simclr.sources import FetchParams, _archives
from simclr.sources._archives import ParsedSplit


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    return _archives.write("svhn", _parts(downloads), output)


def _parts(downloads: Path) -> Iterator[ParsedSplit]:
    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        _archives.download(url, md5, downloads / filename)
        data = _archives.parse(SVHN, url, downloads, split=split)
        yield ParsedSplit(split, [str(digit) for digit in range(10)], data.data.transpose(0, 2, 3, 1), data.labels)
