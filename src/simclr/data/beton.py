"""FFCV's .beton files of images and labels: deterministic writing, checked reading.

The format is upstream's (ffcv 1.0.2, version 2): header, field descriptors, a table with one row per sample, pages
of image data, a table of allocations. Upstream's loader reads these files. Its writer and reader do not serve: the
writer orders pages by a race between its workers, hangs when a worker fails and, if killed, leaves an empty file that
opens; the reader takes a truncated file for a smaller one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.data.upstream import (
    ALLOC_TABLE_TYPE,
    CURRENT_VERSION,
    IMAGE_MODES,
    FieldDescType,
    HeaderType,
    IntField,
    Reader,
    RGBImageField,
    get_metadata_type,
)

RAW, JPEG = IMAGE_MODES["raw"], IMAGE_MODES["jpg"]

_FIELDS = {"image": (2, RGBImageField()), "label": (1, IntField())}
_TABLE = get_metadata_type([field for _, field in _FIELDS.values()])
_TABLE_START = HeaderType.itemsize + len(_FIELDS) * FieldDescType.itemsize

MIN_PAGE = 1 << 21
"""The smallest page in bytes: an image of at most this size fits into any file."""


@dataclass(frozen=True)
class StoredImage:
    """One image as stored in the file: `data` holds `height` * `width` * 3 raw bytes, or a JPEG (`mode`)."""

    mode: int
    height: int
    width: int
    data: bytes


def write(path: Path, images: Iterable[StoredImage], labels: npt.NDArray[np.int64], largest: int) -> None:
    """Write `path` from `images` in order and their `labels` (N,); the bytes depend on nothing else.

    `largest` bounds the bytes of one image and so decides the page size. The file appears whole, checked by `read`, or
    not at all.

    Raises:
        UserError: an image is larger than a page, or the file cannot be written.
    """
    page_size = max(MIN_PAGE, 1 << (largest - 1).bit_length())
    table = np.zeros(len(labels), _TABLE)
    table["f1"] = labels
    allocations = np.zeros(len(labels), ALLOC_TABLE_TYPE)
    descriptors = np.zeros(len(_FIELDS), FieldDescType)
    for descriptor, (name, (kind, field)) in zip(descriptors, _FIELDS.items(), strict=True):
        descriptor["type_id"] = kind
        descriptor["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        descriptor["arguments"][:] = np.frombuffer(field.to_binary().tobytes(), np.uint8)
    position = _aligned(_TABLE_START + table.nbytes, page_size)
    with replacing(path) as partial:
        with partial.open("wb") as file:
            file.seek(position)
            for index, image in enumerate(images):
                data = image.data
                if len(data) > page_size:
                    raise UserError(f"{path}: image {index} takes {len(data)} bytes, more than a page's {page_size}")
                if position % page_size + len(data) > page_size:  # no image crosses a page
                    position = _aligned(position, page_size)
                    file.seek(position)
                table[index]["f0"] = (image.mode, image.width, image.height, position)
                allocations[index] = (index, position, len(data))
                position += file.write(data)
            end = _aligned(position, page_size)
            file.seek(end)
            file.write(allocations.tobytes())
            header = np.zeros(1, HeaderType)
            header[0] = (CURRENT_VERSION, len(_FIELDS), page_size, len(labels), end)
            file.seek(0)
            file.write(header.tobytes() + descriptors.tobytes() + table.tobytes())
        read(partial)


def _aligned(position: int, page_size: int) -> int:
    return -(-position // page_size) * page_size


@dataclass(frozen=True)
class Beton:
    """An open file. Every array has one row per sample, in the order of the file.

    `labels` (N,) int64, -1 without a label; `modes` (N,) uint8; `heights`, `widths` (N,) int64 pixels; `starts`,
    `sizes` (N,) int64 bytes: the position and length of the image in `data`, the memory-mapped file.
    """

    path: Path
    labels: npt.NDArray[np.int64]
    modes: npt.NDArray[np.uint8]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, samples: npt.NDArray[np.int64]) -> "Beton":
        """The `samples` (n,), in this order, as a file of their own; one may come several times."""
        rows = ("labels", "modes", "heights", "widths", "starts", "sizes")
        return replace(self, **{name: getattr(self, name)[samples] for name in rows})

    @cached_property
    def uniform(self) -> bool:
        """Whether all images are raw pixels of one height and width, so that a batch is a plain copy."""
        return bool(
            (self.modes == RAW).all()
            and (self.heights == self.heights[0]).all()
            and (self.widths == self.widths[0]).all()
        )


def read(path: Path) -> Beton:
    """Open `path` and check that it holds every image of its table.

    Raises:
        UserError: the file is missing, no .beton, of another version, without these fields, or truncated.
    """
    try:
        # Upstream's reader takes a truncated file for a smaller one, so check the layout first.
        length = path.stat().st_size
        if length < HeaderType.itemsize:
            raise UserError(f"{path}: {length} bytes are no .beton file")
        header = np.fromfile(path, HeaderType, 1)[0]
        if header["version"] != CURRENT_VERSION:
            raise UserError(f"{path}: not a .beton file of version {CURRENT_VERSION}")
        count, allocations = int(header["num_samples"]), int(header["alloc_table_ptr"])
        if (
            header["num_fields"] != len(_FIELDS)
            or count == 0
            or _TABLE_START + count * _TABLE.itemsize > allocations
            or allocations + count * ALLOC_TABLE_TYPE.itemsize != length  # the allocations end the file
        ):
            raise UserError(f"{path}: truncated, empty or not written by the convert stage")
        reader = Reader(str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged header; the convert stage writes it") from error
    if list(reader.field_names) != list(_FIELDS) or reader.metadata_type != _TABLE:
        raise UserError(f"{path}: not written by the convert stage")
    images = reader.metadata["f0"]  # mode, width, height and position; only the allocations know the sizes of JPEGs
    # upstream's writer appends allocations in the order in which its workers finish
    allocated = reader.alloc_table[np.argsort(reader.alloc_table["sample_id"], kind="stable")]
    # the file's integers are unsigned: a difference below zero would wrap around
    starts, sizes = images["data_ptr"].astype(np.int64), allocated["size"].astype(np.int64)
    heights, widths = images["height"].astype(np.int64), images["width"].astype(np.int64)
    intact = (
        (allocated["sample_id"] == np.arange(count)).all()
        and (allocated["ptr"] == images["data_ptr"]).all()
        and np.isin(images["mode"], (RAW, JPEG)).all()
        and (sizes > 0).all()
        and (heights > 0).all()
        and (widths > 0).all()
        and (starts > 0).all()
        and (starts <= length - sizes).all()  # `starts + sizes` could overflow
        and (sizes == heights * widths * 3)[images["mode"] == RAW].all()
    )
    if not intact:
        raise UserError(f"{path}: damaged: some images do not lie within the file; the convert stage writes it")
    return Beton(
        path=path,
        labels=reader.metadata["f1"].astype(np.int64),
        modes=images["mode"].copy(),
        heights=heights,
        widths=widths,
        starts=starts,
        sizes=sizes,
        data=np.memmap(path, np.uint8, mode="r").view(np.ndarray),
    )
