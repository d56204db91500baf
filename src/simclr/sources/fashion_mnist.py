"""Fashion-MNIST (Xiao et al. 2017): 70,000 gray images of 28 px."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

from simclr.images import source_images
from simclr.sources import FetchParams, _archives
from simclr.sources._archives import ParsedSplit


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    return _archives.write("fashion_mnist", _parts(downloads), output)


def _parts(downloads: Path) -> Iterator[ParsedSplit]:
    [mirror] = FashionMNIST.mirrors
    for filename, md5 in FashionMNIST.resources:
        _archives.download(mirror + filename, md5, downloads / "FashionMNIST" / "raw" / filename)
    for split in ("train", "test"):
        data = _archives.parse(FashionMNIST, mirror, downloads, train=split == "train", download=True)  # unpacks
        grey = data.data.numpy()
        yield ParsedSplit(split, data.classes, np.broadcast_to(grey[:, :, :, None], (*grey.shape, 3)), data.targets)
