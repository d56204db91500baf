"""Crops of images, resized on a CPU by compiled loops: the filter of `crop`, up to rounding.

Each view is made while its pixels are in the cache of one core. A view's bits depend only on its own pixels and box:
sums have a fixed order, whatever the batch and the number of threads.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.core import thread_pool
from simclr.core.compiled import njit

_over_rows = thread_pool.row_pool("crops")
F = np.float32  # Python's numbers would make the arithmetic float64


@njit
def _count(length, size):  # type: ignore[no-untyped-def]
    """K, the number of taps of a target pixel, when `length` >= 0 pixels become `size`."""
    return int(np.ceil(2 * max(1.0, length / size)))


@njit
def _taps(length, size, first, weights):  # type: ignore[no-untyped-def]
    """The filter of `crop` from |`length`| pixels to `size`, mirrored if `length` is negative: target pixel i is the
    sum over k < K of source pixel `first[i]` + k times `weights[i, k]`, which is 0 beyond the ends. Returns K, see
    `_count`."""
    backward = length < 0
    length = abs(length)
    scale = F(length) / F(size)
    reach = max(scale, F(1))  # half the base of the triangle: wider when shrinking, which is the antialiasing
    count = _count(length, size)
    for i in range(size):
        # The center of the target pixel in source coordinates; the center of source pixel j is at j + 0.5. A mirrored
        # view takes its target pixels in reverse, so that the source is always read forwards.
        target = (F(size - 1 - i if backward else i) + F(0.5)) * scale
        # the first source pixel with its center inside of the triangle; negative near the left end
        first[i] = np.int64(np.floor(target - reach + F(0.5)))
        total = F(0)
        for k in range(count):
            tap = first[i] + k
            weight = F(1) - abs(F(tap) + F(0.5) - target) / reach
            weights[i, k] = weight if weight > F(0) and 0 <= tap < length else F(0)
            total += weights[i, k]
        for k in range(count):  # to a sum of 1 near the ends too, where taps are missing
            weights[i, k] /= total
    return count


@njit
def _add_scaled(out, pixels, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += F(pixels[i]) * weight


# Sums over two, three or four taps along a line of interleaved RGB; a box of up to twice the view's size needs no more.
# Each pixel is written as a vector of four elements: the fourth belongs to the next pixel, which overwrites it, so
# that lines have one element to spare. Unrolled by hand, because the compiler vectorises only this form. `a` is the
# first element of the first tap; neighboring taps are three elements apart.
@njit
def _two(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, v, w = 3 * first[i], weights[i, 0], weights[i, 1]
        out[3 * i] = line[a] * v + line[a + 3] * w
        out[3 * i + 1] = line[a + 1] * v + line[a + 4] * w
        out[3 * i + 2] = line[a + 2] * v + line[a + 5] * w
        out[3 * i + 3] = line[a + 3] * v + line[a + 6] * w


@njit
def _three(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, u, v, w = 3 * first[i], weights[i, 0], weights[i, 1], weights[i, 2]
        out[3 * i] = line[a] * u + line[a + 3] * v + line[a + 6] * w
        out[3 * i + 1] = line[a + 1] * u + line[a + 4] * v + line[a + 7] * w
        out[3 * i + 2] = line[a + 2] * u + line[a + 5] * v + line[a + 8] * w
        out[3 * i + 3] = line[a + 3] * u + line[a + 6] * v + line[a + 9] * w


@njit
def _four(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, t, u, v, w = 3 * first[i], weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
        out[3 * i] = line[a] * t + line[a + 3] * u + line[a + 6] * v + line[a + 9] * w
        out[3 * i + 1] = line[a + 1] * t + line[a + 4] * u + line[a + 7] * v + line[a + 10] * w
        out[3 * i + 2] = line[a + 2] * t + line[a + 5] * u + line[a + 8] * v + line[a + 11] * w
        out[3 * i + 3] = line[a + 3] * t + line[a + 6] * u + line[a + 9] * v + line[a + 12] * w


@njit
def _any_number(line, first, weights, count, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        for channel in range(3):
            total = F(0)
            for k in range(count):
                total += line[3 * (first[i] + k) + channel] * weights[i, k]
            out[3 * i + channel] = total


@njit
def _padded_length(width, size):  # type: ignore[no-untyped-def]
    """The length of a line of `width` pixels with a margin on both sides for taps without weight, and one element more,
    which the last vector of four reads."""
    return 3 * (width + 2 * _count(width, size)) + 1


@njit
def _cut(image, box, size, lines, scratch):  # type: ignore[no-untyped-def]
    """Crop the `box` of `image` (H, 3 W) into `size` lines of `size` pixels, `lines` (size, 3 size + 1); `scratch` has
    `_padded_length(W, size)` elements."""
    top, left, height, signed_width = box
    width = abs(signed_width)
    rows, columns = np.empty(size, np.int64), np.empty(size, np.int64)
    row_weights = np.empty((size, _count(height, size)), np.float32)
    column_weights = np.empty((size, _count(width, size)), np.float32)
    row_taps, column_taps = _taps(height, size, rows, row_weights), _taps(signed_width, size, columns, column_weights)
    columns += column_taps  # skip the margin on the left: taps beyond the box read zeros there
    padded = scratch[: _padded_length(width, size)]
    padded[:] = 0
    line = padded[3 * column_taps : 3 * (column_taps + width)]
    for y in range(size):  # first downwards, into one line of full width, then along this line
        line[:] = 0
        for k in range(row_taps):
            if row_weights[y, k] > 0:
                _add_scaled(line, image[top + rows[y] + k, 3 * left : 3 * (left + width)], row_weights[y, k])
        if column_taps == 2:
            _two(padded, columns, column_weights, lines[y])
        elif column_taps == 3:
            _three(padded, columns, column_weights, lines[y])
        elif column_taps == 4:
            _four(padded, columns, column_weights, lines[y])
        else:
            _any_number(padded, columns, column_weights, column_taps, lines[y])


@njit
def cut_pixels(image, boxes, out):  # type: ignore[no-untyped-def]
    """Crop all `boxes` (V, 4) of `image` (H, W, 3) uint8 and resize them to `out` (V, S, S, 3) uint8."""
    height, width, _ = image.shape
    size = out.shape[1]
    lines, scratch = np.empty((size, 3 * size + 1), np.float32), np.empty(_padded_length(width, size), np.float32)
    flat = image.reshape(height, 3 * width)
    for v in range(len(boxes)):
        _cut(flat, boxes[v], size, lines, scratch)
        for y in range(size):
            line, row = lines[y], out[v, y].reshape(3 * size)
            for i in range(3 * size):
                row[i] = np.uint8(line[i] + F(0.5))


@njit
def _resized_crops(images, boxes, out):  # type: ignore[no-untyped-def]
    count, height, width, _ = images.shape
    size = out.shape[-1]
    lines, scratch = np.empty((size, 3 * size + 1), np.float32), np.empty(_padded_length(width, size), np.float32)
    flat = images.reshape(count, height, 3 * width)
    for n in range(count):
        for v in range(boxes.shape[1]):
            _cut(flat[n], boxes[n, v], size, lines, scratch)
            for y in range(size):
                for channel in range(3):
                    for x in range(size):
                        out[n, v, channel, y, x] = lines[y, 3 * x + channel] / F(255)


def resized_crops(images: Tensor, boxes: npt.NDArray[np.int64], size: int) -> Tensor:
    """Crop `boxes` (B, V, 4) of `images` (B, H, W, 3) uint8 to (B, V, 3, size, size) float32 in [0, 1]."""
    out = torch.empty(*boxes.shape[:2], 3, size, size)
    _over_rows(_resized_crops, images.numpy(), boxes, out.numpy())
    return out


@njit
def _unpack(pixels, out):  # type: ignore[no-untyped-def]
    count, views, size, _, _ = pixels.shape
    for n in range(count):
        for v in range(views):
            for y in range(size):
                for channel in range(3):
                    for x in range(size):
                        out[n, v, channel, y, x] = F(pixels[n, v, y, x, channel]) / F(255)


def unpack(pixels: Tensor) -> Tensor:
    """(B, V, S, S, 3) uint8 to (B, V, 3, S, S) float32 in [0, 1]."""
    count, views, size = pixels.shape[:3]
    out = torch.empty(count, views, 3, size, size)
    _over_rows(_unpack, pixels.numpy(), out.numpy())
    return out
