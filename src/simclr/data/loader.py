"""Loading of crops from a .beton file with ffcv's decoder: each image is read and decoded once for all of its boxes.

Small images of one size are stored raw: a batch of them is copied whole, and the device crops it at once. Other images
(JPEG, or of different sizes) are decoded and cropped on the host, one thread per core. For a GPU, the pixels and all
other arrays of a batch are packed together and sent in one copy. Upstream's Loader does not serve: its thread forwards
no exception (an error blocks the consumer), its random crops cannot be seeded, it decodes once per view, and for a
damaged JPEG it returns the pixels of the previous image.

Memory: the views of a batch, 3 S^2 bytes each, or its whole images if they are raw and of one size; and one
decoded image for each thread. JPEGs are always decoded at full size: half the size would need both boxes of a sample to
be 2 S wide and high, at most 0.5 % of images of 512 px, the size at which `convert` stores ImageNet; and a view's
pixels would depend on the other view's box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.core import compiled, thread_pool
from simclr.core.errors import UserError
from simclr.data import crop, cut
from simclr.data.beton import JPEG, Beton
from simclr.data.jpeg_tables import complete_size
from simclr.data.readahead import fits_memory, read_ahead
from simclr.data.upstream import ctypes_imdecode
from simclr.device import transfer
from simclr.device.transfer import Parcel

_JPEG = int(JPEG)
_BLOCK_BYTES = 1 << 18
"""Raw pixels that a thread copies at least: fewer are not worth the call."""
_over_rows = thread_pool.row_pool("decode")


@numba.njit(nogil=True)
def _decode(jpeg, height, width):  # type: ignore[no-untyped-def]
    """Whether `jpeg` is intact and of that size, and its pixels (height * width * 3,)."""
    if complete_size(jpeg) != (height, width):  # libjpeg-turbo would scale, and leave pixels unwritten
        return False, np.empty(0, np.uint8)
    pixels = np.empty(height * width * 3, np.uint8)
    code = ctypes_imdecode(
        jpeg.ctypes.data, jpeg.size, height, width, pixels.ctypes.data,
        height, width, 0, 0, 1, 1, False, False,
    )  # fmt: skip
    return code == 0, pixels


@dataclass(frozen=True)
class Crops:
    """V boxes of each of B images, resized to squares."""

    boxes: npt.NDArray[np.int64]
    """(B, V, 4): see `crop`."""
    size: int
    """The side of the squares in pixels."""


@numba.njit(nogil=True)
def _decode_and_crop(data, starts, sizes, modes, heights, widths, damaged, boxes, out):  # type: ignore[no-untyped-def]
    """`boxes` and `out` are tuples with an array for each size of views."""
    for i in range(len(starts)):
        height, width = heights[i], widths[i]
        pixels = data[starts[i] : starts[i] + sizes[i]]
        if modes[i] == _JPEG:
            intact, pixels = _decode(pixels, height, width)
            if not intact:
                damaged[i] = True
                continue
        image = pixels.reshape(height, width, 3)
        for k in range(len(out)):
            cut.cut_pixels(image, boxes[k][i], out[k][i])


def _decode_and_crop_rows(data: npt.NDArray[np.uint8], *rows: npt.NDArray[Any]) -> None:
    """`_decode_and_crop` for arrays with a row for each image, the last ones boxes and outputs by turns."""
    starts, sizes, modes, heights, widths, damaged, *pairs = rows
    _decode_and_crop(data, starts, sizes, modes, heights, widths, damaged, tuple(pairs[::2]), tuple(pairs[1::2]))


@compiled.njit
def _copy(data, starts, out):  # type: ignore[no-untyped-def]
    """Compiled, because threads that copy a row at a time would take the GIL from the thread that trains."""
    for i in range(len(starts)):
        out[i] = data[starts[i] : starts[i] + out.shape[1]]


def decodable(jpeg: bytes, height: int, width: int) -> bool:
    """Whether ffcv's decoder turns `jpeg` alone into `height` x `width` pixels, without an error or a warning."""
    intact: bool = _decode(np.frombuffer(jpeg, np.uint8), height, width)[0]
    return intact


def _read_whole(beton: Beton, samples: npt.NDArray[np.int64], out: Tensor) -> None:
    """Copy the images of a uniform file into `out` (B, H, W, 3)."""
    images = out.flatten(1).numpy()
    _over_rows(partial(_copy, beton.data), beton.starts[samples], images, least=-(-_BLOCK_BYTES // images.shape[1]))


def _read_crops(beton: Beton, samples: npt.NDArray[np.int64], crops: Sequence[Crops], outs: Sequence[Tensor]) -> None:
    """Cut `crops` of the `samples` into `outs` (B, V, S, S, 3), with the antialiased bilinear filter of `crop`."""
    damaged = np.zeros(len(samples), np.bool_)
    pairs = [array for item, out in zip(crops, outs, strict=True) for array in (item.boxes, out.numpy())]
    _over_rows(
        partial(_decode_and_crop_rows, beton.data), beton.starts[samples], beton.sizes[samples], beton.modes[samples],
        beton.heights[samples], beton.widths[samples], damaged, *pairs,
    )  # fmt: skip
    if damaged.any():
        raise UserError(f"{beton.path}: the JPEG of sample {samples[damaged.argmax()]} is damaged; run convert again")


def load(
    beton: Beton,
    samples: npt.NDArray[np.int64],
    crops: Sequence[Crops],
    device: torch.device,
    rows: Mapping[str, npt.NDArray[np.generic]] | None = None,
) -> Parcel:
    """Load the input of the function `crops` for `crops` of the `samples` (B,), to be sent to `device`.

    Args:
        rows: more arrays to send along.

    Raises:
        UserError: an image is damaged; names the file and the first such sample.
    """
    arrays = dict(rows or {})
    if beton.uniform:
        on_cpu = device.type == "cpu"
        for k, item in enumerate(crops):
            arrays[f"boxes.{k}" if on_cpu else f"filters.{k}"] = (
                item.boxes if on_cpu else crop.filters(item.boxes, item.size)
            )
        shapes = {"pixels": (len(samples), int(beton.heights[0]), int(beton.widths[0]), 3)}
    else:
        if not fits_memory(beton):
            read_ahead(beton, samples)  # all at once: decoding would ask for one page after the other
        shapes = {f"pixels.{k}": (*item.boxes.shape[:2], item.size, item.size, 3) for k, item in enumerate(crops)}
    loaded = transfer.pack(arrays, device, {name: (torch.uint8, shape) for name, shape in shapes.items()})
    outs = [loaded[name] for name in shapes]  # read straight into the memory to be sent
    if beton.uniform:
        _read_whole(beton, samples, outs[0])
    else:
        _read_crops(beton, samples, crops, outs)
    return loaded


def prefetch_batches(device: torch.device) -> int:
    """The number of batches to load ahead of the current one.

    Two for a GPU, so that an occasional slow read does not stall it. The price is pinned memory, for these two and for
    the one being copied: with 256 samples per GPU at 224 px, 77 MB, three times 128 MiB (powers of two); with 4096
    samples, three times 2 GiB. One for a CPU, where loading takes time from training.
    """
    return 1 if device.type == "cpu" else 2


def crops(loaded: Parcel, k: int, size: int) -> Tensor:
    """The k-th crops on the device of `loaded`, all first boxes before all second ones.

    Args:
        loaded: the result of `load`, sent to its device.
        size: that of the k-th crops.

    Returns:
        (V * B, 3, size, size) float32 in [0, 1].
    """
    if f"pixels.{k}" in loaded:
        pixels = loaded[f"pixels.{k}"]
        if pixels.device.type == "cpu":
            return cut.unpack(pixels).transpose(0, 1).flatten(0, 1)
        return _unpack(pixels)
    pixels = loaded["pixels"]
    if pixels.device.type == "cpu":
        return cut.resized_crops(pixels, loaded[f"boxes.{k}"].numpy(), size).transpose(0, 1).flatten(0, 1)
    return crop.resized_crops(pixels, loaded[f"filters.{k}"], size)


def _unpack(pixels: Tensor) -> Tensor:
    """(B, V, S, S, 3) uint8 to (V * B, 3, S, S) float32 in [0, 1], in one pass."""
    views = pixels.permute(1, 0, 4, 2, 3)
    out = torch.empty(views.shape, device=pixels.device)
    return torch.div(views, 255, out=out).flatten(0, 1)


def thumbnails(beton: Beton, samples: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.uint8]:
    """The central squares of `samples` (B,) for pictures: (B, S, S, 3), with S = `size` or, if uniform, as stored.

    Raises:
        UserError: as `load`.
    """
    boxes = crop.central_boxes(beton.heights[samples], beton.widths[samples], share=1.0)[:, None]
    loaded = load(beton, samples, [Crops(boxes, size)], torch.device("cpu"))
    squares = loaded["pixels"] if beton.uniform else loaded["pixels.0"][:, 0]
    return squares.numpy()
