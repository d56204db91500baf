"""Conversion of source images to .beton files: splits, size and storage of every image, and statistics."""

import io
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simclr.conversion import channel_statistics
from simclr.conversion.splits import long_tailed, stratified
from simclr.core import fingerprint, params, thread_pool
from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.core.rgb import Pixels
from simclr.data import beton
from simclr.data.beton import JPEG, RAW, StoredImage
from simclr.data.converted import DatasetInfo, save_info, save_names, split_path
from simclr.data.loader import decodable
from simclr.data.sampling import Indices
from simclr.images import source_images
from simclr.images.decode_image import decode
from simclr.images.source_images import FileSplit
from simclr.tracking import progress

_SMALL = 64
"""The longer side in pixels up to which `storage: auto` stores images raw."""
_FEWEST = 2
"""Images without labels that train and test need each: no batch and no map is smaller."""


@dataclass(kw_only=True)
class ConvertParams:
    """`convert` of params.yaml."""

    seed: int = params.seed()
    long_tail: float = params.at_least(1)
    val_fraction: float = params.between(0.001, 0.9)
    storage: str = params.choice("auto", "raw", "jpeg")
    max_resolution: int = params.between(1, 16384)  # raw, that is 768 MiB; a page takes 2 GiB at most
    jpeg_quality: int = params.between(1, 100)


@dataclass(frozen=True)
class _Subset:
    """A split of the output: some samples of a source split."""

    split: source_images.Split
    samples: Indices

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return self.split.labels[self.samples]


def convert(parameters: ConvertParams, source: source_images.Dataset, output: Path) -> dict[str, Any]:
    """Write a .beton for every split of `source`, and dataset.json, into the folder `output`.

    `long_tail` may leave training images out. Without a validation split in `source`, it is taken from the training
    split; of images without labels, which come as one split, test too. Equal images and parameters give equal bytes.

    Returns:
        The counts and bytes of each split, and each channel's mean and standard deviation.

    Raises:
        UserError: an image cannot be read, no validation split is possible, images without labels are to have a long
            tail, or `output` cannot be written.
    """
    subsets = {name: _Subset(split, np.arange(len(split))) for name, split in source.splits.items()}
    if parameters.long_tail > 1:
        if not source.classes:
            takes = "1, since these images have no labels"
            raise params.refusal("convert.long_tail", parameters.long_tail, takes)
        kept = long_tailed(subsets["train"].labels, parameters.long_tail, parameters.seed)
        subsets["train"] = _Subset(subsets["train"].split, kept)
    if "val" not in subsets:
        subsets["train"], subsets["val"] = _parted(subsets["train"], parameters)
        if not len(subsets["val"].samples):
            raise UserError("the training split has no class with two images: no validation split can be taken")
    if "test" not in subsets:  # images without labels: no source with labels lacks a test split
        total = len(subsets["train"].samples) + len(subsets["val"].samples)
        subsets["train"], subsets["test"] = _parted(subsets["train"], parameters, _FEWEST)
        parts = {name: len(subsets[name].samples) for name in ("train", "val", "test")}
        if min(parts["train"], parts["test"]) < _FEWEST:
            least = 2 * _FEWEST + 1
            raise UserError(
                f"{total} images without labels are too few: train and test take {_FEWEST}, and val 1, so {least}"
                if total < least
                else f"of {total} images without labels convert.val_fraction = {parameters.val_fraction} leaves "
                f"{parts['train']} for train and {parts['test']} for test, which take {_FEWEST} each; lower it"
            )
    report: dict[str, Any] = {}
    with replacing(output) as folder:
        folder.mkdir()
        for name in ("train", "val", "test", "unlabelled"):
            if name in subsets:
                report[name] = _write(parameters, subsets[name], split_path(folder, name))
        for name in ("train", "val"):
            split = subsets[name].split
            if isinstance(split, FileSplit):
                save_names(folder, name, (split.paths[sample] for sample in subsets[name].samples))
        mean, std = channel_statistics.measure(beton.read(split_path(folder, "train")), parameters.seed)
        digests = {name: fingerprint.of_file(split_path(folder, name)) for name in subsets}
        save_info(folder, DatasetInfo(source.classes, mean, std, digests))
    colors = ("red", "green", "blue")
    report["mean"] = dict(zip(colors, mean, strict=True))
    report["std"] = dict(zip(colors, std, strict=True))
    return report


def _parted(train: _Subset, parameters: ConvertParams, least: int = 1) -> tuple[_Subset, _Subset]:
    """`train` without `val_fraction` of it, and that part."""
    rest, part = (
        _Subset(train.split, train.samples[members])
        for members in stratified(train.labels, parameters.val_fraction, parameters.seed, least)
    )
    return rest, part


def _write(parameters: ConvertParams, subset: _Subset, path: Path) -> dict[str, int]:
    stored = {RAW: 0, JPEG: 0}

    def encoded() -> Generator[StoredImage, None, None]:
        images = prefetch(
            lambda sample: encode(subset.split.read(sample), parameters), subset.samples.tolist(), thread_pool.THREADS
        )
        with progress.bar(len(subset.samples), "img", path.stem) as bar:
            for image in images:
                stored[image.mode] += 1
                yield image
                bar.update()

    with closing(encoded()) as images:  # its bar ends before an error is printed
        beton.write(path, images, subset.labels, largest=3 * parameters.max_resolution**2)
    size = path.stat().st_size
    return {"images": len(subset.samples), "raw": stored[RAW], "jpeg": stored[JPEG], "bytes": size}


def encode(image: Pixels | source_images.Jpeg, parameters: ConvertParams) -> StoredImage:
    """Encode `image` for storage: shrunk to `max_resolution`, raw or as a JPEG.

    A JPEG that stays one, fits, and that ffcv decodes without warnings is copied byte for byte.
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
