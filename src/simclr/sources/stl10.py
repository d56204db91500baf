"""STL-10 (Coates et al. 2011): 96 px; 5,000 labelled images to train on, 100,000 without labels."""

from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets import STL10

from simclr.images import source_images
from simclr.sources import FetchParams, _archives
from simclr.sources._archives import ParsedSplit


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    return _archives.write("stl10", _parts(downloads), output)


def _parts(downloads: Path) -> Iterator[ParsedSplit]:
    _archives.unpack_tar(_archives.download(STL10.url, STL10.tgz_md5, downloads / STL10.filename))
    for split, name in {"train": "train", "test": "test", "unlabelled": "unlabeled"}.items():
        data = _archives.parse(STL10, STL10.url, downloads, split=name)
        yield ParsedSplit(split, data.classes, data.data.transpose(0, 2, 3, 1), data.labels)
