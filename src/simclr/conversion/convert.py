"""Raw images to .beton files: the splits, the size and storage of every image, and what is known about them all."""

import io
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simclr.conversion.splits import stratified
from simclr.core import fingerprint, params, thread_pool
from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetched
from simclr.core.randomness import permutation
from simclr.data import beton
from simclr.data.beton import JPEG, RAW, StoredImage
from simclr.data.converted import DatasetInfo, describe, split_path
from simclr.data.loader import decodable
from simclr.data.sampling import Indices
from simclr.images import source_images
from simclr.images.decode_image import Pixels, decode
from simclr.tracking import progress

_SMALL = 64
"""Pixels of the longer side up to which `storage: auto` keeps images raw."""
_MEASURED = 50_000
"""Training images whose pixels give the mean and the standard deviation, at most."""


@dataclass(kw_only=True)
class ConvertParams:
    """`convert` of params.yaml."""

    seed: int = params.seed()
    val_fraction: float = params.between(0.001, 0.9)
    storage: str = params.choice("auto", "raw", "jpeg")
    max_resolution: int = params.between(1, 16384)  # raw, that is 768 MiB; a page takes 2 GiB at most
    jpeg_quality: int = params.between(1, 100)


@dataclass(frozen=True)
class _Part:
    """The samples of a raw split that make up a split here."""

    split: source_images.Split
    samples: Indices

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.split.labels[self.samples]


def convert(parameters: ConvertParams, source: source_images.Dataset, output: Path) -> dict[str, Any]:
    """Write a .beton for every split of `source`, and the description of the data set, into the folder `output`.

    Without a validation split in `source` one is taken from its training split. The same images and parameters give
    the same bytes.

    Returns:
        What there is to report: the counts and bytes of each split, and each channel's mean and standard deviation.

    Raises:
        UserError: an image cannot be read, there is nothing to validate on, or `output` cannot be written.
    """
    parts = {name: _Part(split, np.arange(len(split))) for name, split in source.splits.items()}
    if "val" not in parts:
        train = source.splits["train"]
        rest, chosen = stratified(train.labels, parameters.val_fraction, parameters.seed)
        if not len(chosen):
            raise UserError("the training split has no class with two images: no validation split can be taken")
        parts["train"], parts["val"] = _Part(train, rest), _Part(train, chosen)
    report: dict[str, Any] = {}
    with replacing(output) as folder:
        folder.mkdir()
        for name in ("train", "val", "test", "unlabelled"):
            if name in parts:
                report[name] = _write(parameters, parts[name], split_path(folder, name))
        mean, std = _statistics(parts["train"], parameters.seed)
        digests = {name: fingerprint.of_file(split_path(folder, name)) for name in parts}
        describe(folder, DatasetInfo(source.classes, mean, std, digests))
    colors = ("red", "green", "blue")
    report["mean"] = dict(zip(colors, mean, strict=True))
    report["std"] = dict(zip(colors, std, strict=True))
    return report


def _write(parameters: ConvertParams, part: _Part, path: Path) -> dict[str, int]:
    stored = {RAW: 0, JPEG: 0}

    def encoded() -> Generator[StoredImage, None, None]:
        images = prefetched(
            lambda sample: encode(part.split.read(sample), parameters), part.samples.tolist(), thread_pool.THREADS
        )
        with progress.bar(len(part.samples), "img", path.stem) as bar:
            for image in images:
                stored[image.mode] += 1
                yield image
                bar.update()

    with closing(encoded()) as images:  # its bar ends before an error is told
        beton.write(path, images, part.labels, largest=3 * parameters.max_resolution**2)
    size = path.stat().st_size
    return {"images": len(part.samples), "raw": stored[RAW], "jpeg": stored[JPEG], "bytes": size}


def encode(image: Pixels | source_images.Jpeg, parameters: ConvertParams) -> StoredImage:
    """How `image` is stored: shrunk to `max_resolution`, raw or as a JPEG.

    A JPEG that is to stay one, fits, and that ffcv decodes without complaint is taken over byte for byte.
    """
    height, width = (image.height, image.width) if isinstance(image, source_images.Jpeg) else image.shape[:2]
    longer = max(height, width)
    as_raw = parameters.storage == "raw" or (
        parameters.storage == "auto" and min(longer, parameters.max_resolution) <= _SMALL
    )
    if isinstance(image, source_images.Jpeg):
        fits = longer <= parameters.max_resolution and len(image.data) <= max(beton.MIN_PAGE, 3 * height * width)
        if fits and not as_raw and decodable(image.data, height, width):
            return StoredImage(JPEG, height, width, image.data)
        image = _pixels(image)
    if longer > parameters.max_resolution:
        scale = parameters.max_resolution / longer
        height, width = (max(1, round(side * scale)) for side in (height, width))
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    if as_raw:
        return StoredImage(RAW, height, width, image.tobytes())
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=parameters.jpeg_quality)
    return StoredImage(JPEG, height, width, buffer.getvalue())


def _pixels(image: Pixels | source_images.Jpeg) -> Pixels:
    return decode(image.data, "a JPEG that fetch accepted") if isinstance(image, source_images.Jpeg) else image


def _statistics(part: _Part, seed: int) -> tuple[list[float], list[float]]:
    """Each channel's mean and standard deviation (1 where it has none), values from 0 to 1, over pixels."""

    def histograms(sample: int) -> npt.NDArray[np.int64]:
        pixels = _pixels(part.split.read(sample))
        return np.stack([np.bincount(channel, minlength=256) for channel in pixels.reshape(-1, 3).T])

    measured = part.samples[permutation(len(part.samples), seed)[:_MEASURED]].tolist()
    counts = sum(prefetched(histograms, measured, thread_pool.THREADS), np.zeros((3, 256), np.int64))
    mean, std = [], []
    for channel in counts:  # in integers, so that no machine rounds otherwise
        count, total, squares = (int(channel @ np.arange(256) ** power) for power in range(3))
        mean.append(total / count / 255)
        std.append(math.sqrt(count * squares - total**2) / count / 255 or 1.0)
    return mean, std
