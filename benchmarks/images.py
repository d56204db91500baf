"""The images that all contestants are given: crops of photographs, as JPEG files and as small arrays; or those of the
classes of a folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.contest import MissingError, peer
from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.data import beton
from simclr.data.beton import JPEG, RAW, Beton, StoredImage
from simclr.images.decode_image import plain_jpeg

QUALITY = 90
LAYOUT = "a folder with train/<class>/* and test/<class>/* (or val/)"
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SIDES = (256, 512)
"""Pixels of a crop's height and of its width, at least and at most: the range of ImageNet's usual preparation."""
_SMALLEST = 64
"""Pixels of the smallest square that is shrunk to a small image."""


@dataclass(frozen=True)
class Images:
    """`files` are JPEGs of different sizes; `small` (N, 32, 32, 3) uint8 are shrunk pieces of them."""

    files: list[Path]
    small: Pixels


def photographs() -> list[Pixels]:
    """Those that scikit-learn carries, and scikit-image where it is installed: (H, W, 3) uint8 of several sizes."""
    from sklearn.datasets import load_sample_images

    found = list(load_sample_images().images)
    try:
        data = peer("skimage.data")
        found += [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0]]
    except MissingError:
        pass
    return found


def cut(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` crops of the photographs, of random sizes and at random places, as JPEG files into `folder`."""
    rng = np.random.default_rng(seed)
    pictures = photographs()
    paths = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        height, width = (int(rng.integers(_SIDES[0], min(_SIDES[1], side) + 1)) for side in picture.shape[:2])
        top, left = int(rng.integers(picture.shape[0] - height + 1)), int(rng.integers(picture.shape[1] - width + 1))
        paths.append(folder / f"{index:05}.jpg")
        Image.fromarray(picture[top : top + height, left : left + width]).save(paths[-1], quality=QUALITY)
    return paths


def found(folder: Path, count: int) -> list[Path]:
    """The first `count` JPEG files under `folder` that can be stored as they are.

    Raises:
        UserError: there is none.
    """
    paths = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".jpe") and plain_jpeg(path.read_bytes()):
            paths.append(path)
        if len(paths) == count:
            break
    if not paths:
        raise UserError(f"{folder}: no JPEG file is in it")
    return paths


def class_folders(split: Path) -> list[Path]:
    """The folders of all classes in `split`, by name.

    Raises:
        UserError: there is none.
    """
    classes = sorted(path for path in split.iterdir() if path.is_dir()) if split.is_dir() else []
    if not classes:
        raise UserError(f"{split}: no class folder is in it; --images takes {LAYOUT}")
    return classes


def held_out(folder: Path) -> Path:
    """Its test split: test/, or val/ where there is none."""
    return folder / ("test" if (folder / "test").is_dir() else "val")


def first(folder: Path, count: int) -> list[Path]:
    """The first `count` images in the `folder` of a class, by name.

    Raises:
        UserError: there are fewer.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)[:count]
    if len(paths) < count:
        raise UserError(f"{folder}: {count} images are needed, {len(paths)} (.jpg, .jpeg or .png) are there")
    return paths


def shrunk(files: Sequence[Path], count: int, size: int = 32, seed: int = 0) -> Pixels:
    """`count` squares at random places of the `files`, shrunk to (N, size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = np.empty((count, size, size, 3), np.uint8)
    for number, path in enumerate(files):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for index in range(number, count, len(files)):
            side = int(rng.integers(min(_SMALLEST, *image.size), min(image.size) + 1))
            left, top = (int(rng.integers(whole - side + 1)) for whole in image.size)
            box = (left, top, left + side, top + side)
            small[index] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return small


def stored_files(path: Path, files: Sequence[Path]) -> Beton:
    """The JPEG `files` as a .beton, byte for byte; they are read one at a time."""

    def stored(file: Path) -> StoredImage:
        content = file.read_bytes()
        size = plain_jpeg(content)
        assert size is not None
        return StoredImage(JPEG, *size, content)

    largest = max(file.stat().st_size for file in set(files))
    beton.write(path, map(stored, files), np.zeros(len(files), np.int64), largest)
    return beton.read(path)


def stored_arrays(path: Path, images: Pixels) -> Beton:
    """`images` (N, H, W, 3) as a .beton of raw pixels."""
    height, width = images.shape[1:3]
    stored = (StoredImage(RAW, height, width, image.tobytes()) for image in images)
    beton.write(path, stored, np.zeros(len(images), np.int64), largest=height * width * 3)
    return beton.read(path)
