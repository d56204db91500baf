"""CIFAR-100 (Krizhevsky 2009): 60,000 images of 32 px in 100 classes."""

from pathlib import Path

from torchvision.datasets import CIFAR100

from simclr.images import source_images
from simclr.sources import FetchParams, _archives


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    return _archives.write("cifar100", _archives.cifar_parts(CIFAR100, downloads), output)
