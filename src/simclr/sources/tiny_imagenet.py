"""Tiny ImageNet (Stanford CS231n): 64 px, 200 classes of 500 images; its 10,000 validation images are the test split.

The archive's own test images have no labels, and are left out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.images import source_images
from simclr.images.decode_image import decode
from simclr.sources import FetchParams, _archives
from simclr.sources._archives import ParsedSplit

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
_FOLDER = "tiny-imagenet-200"


def fetch(parameters: FetchParams, output: Path, downloads: Path) -> source_images.Dataset:
    return _archives.write("tiny_imagenet", _parts(downloads), output)


def _parts(downloads: Path) -> Iterator[ParsedSplit]:
    _archives.unpack_zip(_archives.download(URL, MD5, downloads / f"{_FOLDER}.zip"))
    folder = downloads / _FOLDER
    try:
        ids = sorted((folder / "wnids.txt").read_text().split())
        words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
        classes = [words[name].split(",")[0] for name in ids]
        train = [
            (path, label)
            for label, name in enumerate(ids)
            for path in sorted((folder / "train" / name / "images").iterdir())
        ]
        rows = (line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines())
        test = sorted((folder / "val" / "images" / row[0], ids.index(row[1])) for row in rows)
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{URL}: its content is damaged ({error})") from error
    for split, samples in (("train", train), ("test", test)):
        yield ParsedSplit(split, classes, _pixels([path for path, _ in samples]), [label for _, label in samples])


def _pixels(paths: list[Path]) -> Pixels:
    """(N, 64, 64, 3) uint8; some of the images are gray."""
    return np.stack([decode(path.read_bytes(), path.name) for path in paths])
