"""Writing a .beton from a folder of JPEG files.

python -m benchmarks --only conversion
"""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.contest import CORES, Row, Run, compare
from benchmarks.loading import opened
from simclr import presets
from simclr.conversion import convert
from simclr.conversion.convert import ConvertParams
from simclr.core import params, prefetch
from simclr.data import beton
from simclr.images import source_images

NOTES = """\
- Upstream's DatasetWriter, with one worker: write_mode "jpg", the same quality and largest side. It decodes and encodes
  every image anew; ours stores a JPEG that fits as it is, after decoding it to see that it is sound.
- "whole stage": convert also measures mean and standard deviation, and takes checksums."""


def rows(files: Sequence[Path], folder: Path, *, repeats: int) -> Iterator[Row]:
    """The rows of the table, for the JPEG `files`; `folder` takes what is written."""
    parameters = params.check(presets.compose("imagenet")["convert"], ConvertParams, "convert", "imagenet")
    names = [str(path) for path in files]
    digests = [source_images.digest(path.read_bytes()) for path in files]
    split = source_images.FileSplit(Path("/"), names, digests, np.arange(len(files)) % 2)
    output = folder / "written"

    def written() -> float:
        began = time.perf_counter()
        images = prefetch.prefetch(
            lambda sample: convert.encode(split.read(sample), parameters), range(len(split)), CORES
        )
        beton.write(output, images, split.labels, largest=3 * parameters.max_resolution**2)
        return len(split) / (time.perf_counter() - began)

    def converted() -> float:
        source = source_images.Dataset("folder", ["even", "odd"], {"train": split, "test": split})
        began = time.perf_counter()
        with redirect_stderr(io.StringIO()):  # progress bars
            convert.convert(parameters, source, folder / "converted")
        return 2 * len(split) / (time.perf_counter() - began)

    def upstream(workers: int) -> Run:
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        field = RGBImageField("jpg", max_resolution=parameters.max_resolution, jpeg_quality=parameters.jpeg_quality)
        pairs = _Pairs(files)

        def run() -> float:
            began = time.perf_counter()
            writer = DatasetWriter(str(folder / "upstream"), {"image": field, "label": IntField()}, num_workers=workers)
            with redirect_stderr(io.StringIO()):
                writer.from_indexed_dataset(pairs)
            return len(files) / (time.perf_counter() - began)

        return run

    yield from compare(
        "conversion of JPEGs: writing", "images/s", written,
        {"FFCV, one worker": lambda: upstream(1), f"FFCV, {CORES} workers": lambda: upstream(CORES)},
        repeats, more_is_better=True, targets={"FFCV, one worker": 2.0},
    )  # fmt: skip
    yield from compare(
        "conversion of JPEGs: whole stage", "images/s", converted, {"FFCV, one worker": lambda: upstream(1)},
        repeats, more_is_better=True,
    )  # fmt: skip


class _Pairs:
    """Image and label of each file."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return opened(self.files[index]), int(index) % 2
