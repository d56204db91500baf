"""Views on a CPU: each is cut and changed by compiled loops while it lies in the cache of one core.

The results are those of `crop`, `color` and `blur` up to rounding. There each operation is a pass over the batch, as a
GPU wants it; on a CPU the passes over memory would take the time. And here a view's bits depend on nothing but its own
pixels and draws: sums are taken in one order, or of integers, whatever the batch and the number of threads.
"""

from functools import partial

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr import parallel

_over_rows = parallel.crew("views")
F = np.float32  # without it, numbers of Python would make the arithmetic that of float64


def _njit(function):  # type: ignore[no-untyped-def]
    """`function` compiled, and kept for the next process where numba finds a folder for it."""
    compiled = partial(numba.njit, function, nogil=True, error_model="numpy")
    try:
        return compiled(cache=True)
    except RuntimeError:  # neither beside the source nor in a home can anything be written
        return compiled()


# --- cutting a box out of an image


@_njit
def _count(length, size):  # type: ignore[no-untyped-def]
    """K, the taps of each target pixel, where `length` >= 0 pixels become `size`."""
    return int(np.ceil(2 * max(1.0, length / size)))


@_njit
def _taps(length, size, first, weights):  # type: ignore[no-untyped-def]
    """The filter of `crop` that takes |`length`| pixels to `size`, from last to first if it is negative: target pixel
    i is the sum over k < K of source pixel `first[i]` + k times `weights[i, k]`, which is 0 beyond the ends. Returns
    K, see `_count`."""
    backward = length < 0
    length = abs(length)
    scale = F(length) / F(size)
    reach = max(scale, F(1))
    count = _count(length, size)
    for i in range(size):
        target = (F(size - 1 - i if backward else i) + F(0.5)) * scale
        first[i] = np.int64(np.floor(target - reach + F(0.5)))
        total = F(0)
        for k in range(count):
            tap = first[i] + k
            weight = F(1) - abs(F(tap) + F(0.5) - target) / reach
            weights[i, k] = weight if weight > F(0) and 0 <= tap < length else F(0)
            total += weights[i, k]
        for k in range(count):
            weights[i, k] /= total
    return count


@_njit
def _add(out, pixels, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += F(pixels[i]) * weight


# Along a line, three channels are too few for a vector of four: the fourth element belongs to the next pixel, which
# overwrites it. Unrolled by hand, because the compiler makes vectors of this form alone.
@_njit
def _two(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, v, w = 3 * first[i], weights[i, 0], weights[i, 1]
        out[3 * i] = line[a] * v + line[a + 3] * w
        out[3 * i + 1] = line[a + 1] * v + line[a + 4] * w
        out[3 * i + 2] = line[a + 2] * v + line[a + 5] * w
        out[3 * i + 3] = line[a + 3] * v + line[a + 6] * w


@_njit
def _three(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, u, v, w = 3 * first[i], weights[i, 0], weights[i, 1], weights[i, 2]
        out[3 * i] = line[a] * u + line[a + 3] * v + line[a + 6] * w
        out[3 * i + 1] = line[a + 1] * u + line[a + 4] * v + line[a + 7] * w
        out[3 * i + 2] = line[a + 2] * u + line[a + 5] * v + line[a + 8] * w
        out[3 * i + 3] = line[a + 3] * u + line[a + 6] * v + line[a + 9] * w


@_njit
def _four(line, first, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        a, t, u, v, w = 3 * first[i], weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
        out[3 * i] = line[a] * t + line[a + 3] * u + line[a + 6] * v + line[a + 9] * w
        out[3 * i + 1] = line[a + 1] * t + line[a + 4] * u + line[a + 7] * v + line[a + 10] * w
        out[3 * i + 2] = line[a + 2] * t + line[a + 5] * u + line[a + 8] * v + line[a + 11] * w
        out[3 * i + 3] = line[a + 3] * t + line[a + 6] * u + line[a + 9] * v + line[a + 12] * w


@_njit
def _many(line, first, weights, count, out):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        for channel in range(3):
            total = F(0)
            for k in range(count):
                total += line[3 * (first[i] + k) + channel] * weights[i, k]
            out[3 * i + channel] = total


@_njit
def _padded(width, size):  # type: ignore[no-untyped-def]
    """The elements of a line of `width` pixels with room on both sides for taps without weight, and of one more, which
    the last vector of four reaches."""
    return 3 * (width + 2 * _count(width, size)) + 1


@_njit
def _cut(image, box, size, lines, scratch):  # type: ignore[no-untyped-def]
    """The `box` of `image` (H, 3 W) as `size` lines of `size` pixels: `lines` (size, 3 size + 1); `scratch` of
    `_padded(W, size)` elements."""
    top, left, height, signed_width = box
    width = abs(signed_width)
    rows, columns = np.empty(size, np.int64), np.empty(size, np.int64)
    row_weights = np.empty((size, _count(height, size)), np.float32)
    column_weights = np.empty((size, _count(width, size)), np.float32)
    row_taps, column_taps = _taps(height, size, rows, row_weights), _taps(signed_width, size, columns, column_weights)
    columns += column_taps
    padded = scratch[: _padded(width, size)]
    padded[:] = 0
    line = padded[3 * column_taps : 3 * (column_taps + width)]
    for y in range(size):
        line[:] = 0
        for k in range(row_taps):
            if row_weights[y, k] > 0:
                _add(line, image[top + rows[y] + k, 3 * left : 3 * (left + width)], row_weights[y, k])
        if column_taps == 2:
            _two(padded, columns, column_weights, lines[y])
        elif column_taps == 3:
            _three(padded, columns, column_weights, lines[y])
        elif column_taps == 4:
            _four(padded, columns, column_weights, lines[y])
        else:
            _many(padded, columns, column_weights, column_taps, lines[y])


@_njit
def cut_pixels(image, boxes, out):  # type: ignore[no-untyped-def]
    """All `boxes` (V, 4) of `image` (H, W, 3) uint8, resized to `out` (V, S, S, 3) uint8."""
    height, width, _ = image.shape
    size = out.shape[1]
    lines, scratch = np.empty((size, 3 * size + 1), np.float32), np.empty(_padded(width, size), np.float32)
    flat = image.reshape(height, 3 * width)
    for v in range(len(boxes)):
        _cut(flat, boxes[v], size, lines, scratch)
        for y in range(size):
            line, row = lines[y], out[v, y].reshape(3 * size)
            for i in range(3 * size):
                row[i] = np.uint8(line[i] + F(0.5))


@_njit
def _resized_crops(images, boxes, out):  # type: ignore[no-untyped-def]
    count, height, width, _ = images.shape
    size = out.shape[-1]
    lines, scratch = np.empty((size, 3 * size + 1), np.float32), np.empty(_padded(width, size), np.float32)
    flat = images.reshape(count, height, 3 * width)
    for n in range(count):
        for v in range(boxes.shape[1]):
            _cut(flat[n], boxes[n, v], size, lines, scratch)
            for y in range(size):
                for channel in range(3):
                    for x in range(size):
                        out[n, v, channel, y, x] = lines[y, 3 * x + channel] / F(255)


def resized_crops(images: Tensor, boxes: npt.NDArray[np.int64], size: int) -> Tensor:
    """The `boxes` (B, V, 4) of `images` (B, H, W, 3) uint8, resized: (B, V, 3, size, size) float32 in [0, 1]."""
    out = torch.empty(*boxes.shape[:2], 3, size, size)
    _over_rows(_resized_crops, images.numpy(), boxes, out.numpy())
    return out


@_njit
def _unpacked(pixels, out):  # type: ignore[no-untyped-def]
    count, views, size, _, _ = pixels.shape
    for n in range(count):
        for v in range(views):
            for y in range(size):
                for channel in range(3):
                    for x in range(size):
                        out[n, v, channel, y, x] = F(pixels[n, v, y, x, channel]) / F(255)


def unpacked(pixels: Tensor) -> Tensor:
    """(B, V, S, S, 3) uint8 to (B, V, 3, S, S) float32 in [0, 1]."""
    count, views, size = pixels.shape[:3]
    out = torch.empty(count, views, 3, size, size)
    _over_rows(_unpacked, pixels.numpy(), out.numpy())
    return out


# --- changing a view, whose channels are r, g and b


@_njit
def _clamped(value):  # type: ignore[no-untyped-def]
    value = value if value > F(0) else F(0)
    return value if value < F(1) else F(1)


@_njit
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return F(0.2989) * red + F(0.587) * green + F(0.114) * blue


@_njit
def _blend(r, g, b, factor, rest):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        r[i] = _clamped(factor * r[i] + rest)
        g[i] = _clamped(factor * g[i] + rest)
        b[i] = _clamped(factor * b[i] + rest)


@_njit
def _contrast(r, g, b, factor):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for i in range(len(r)):
        total += np.int64(np.rint(_luma(r[i], g[i], b[i]) * F(2**24)))
    _blend(r, g, b, factor, (F(1) - factor) * (F(total) / F(2**24 * len(r))))


@_njit
def _saturation(r, g, b, factor):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        rest = (F(1) - factor) * _luma(r[i], g[i], b[i])
        r[i] = _clamped(factor * r[i] + rest)
        g[i] = _clamped(factor * g[i] + rest)
        b[i] = _clamped(factor * b[i] + rest)


@_njit
def _channel(value, chroma, position):  # type: ignore[no-untyped-def]
    # position modulo 6, from [-4, 14)
    position = position - F(12) if position >= F(12) else position
    position = position - F(6) if position >= F(6) else position
    position = position + F(6) if position < F(0) else position
    other = F(4) - position
    return value - chroma * _clamped(position if position < other else other)


@_njit
def _hue(r, g, b, shift):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        red, green, blue = r[i], g[i], b[i]
        value = red if red > green else green
        value = value if value > blue else blue
        least = red if red < green else green
        least = least if least < blue else blue
        chroma = value - least
        divisor = F(1) if chroma == F(0) else chroma
        from_red = (green - blue) / divisor
        from_green = F(2) + (blue - red) / divisor
        from_blue = F(4) + (red - green) / divisor
        sextant = from_green if value == green else from_blue
        sextant = from_red if value == red else sextant
        turned = sextant + F(6) * shift
        r[i] = _channel(value, chroma, turned + F(5))
        g[i] = _channel(value, chroma, turned + F(3))
        b[i] = _channel(value, chroma, turned + F(1))


@_njit
def _grayscale(r, g, b):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        luma = _luma(r[i], g[i], b[i])
        r[i], g[i], b[i] = luma, luma, luma


@_njit
def _add_pair(out, before, after, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += (before[i] + after[i]) * weight


@_njit
def _blur(plane, weights, total, scratch):  # type: ignore[no-untyped-def]
    """`plane` (S, S) by the `weights` (half,) of the distances 1 to half; `scratch` of (S + 2 half) S elements."""
    size, half = len(plane), len(weights)
    padded = scratch.reshape(size + 2 * half, size)
    padded[half : half + size] = plane
    for k in range(1, half + 1):
        padded[half - k] = plane[k]
        padded[half + size - 1 + k] = plane[size - 1 - k]
    for y in range(size):
        for k in range(1, half + 1):
            _add_pair(plane[y], padded[half + y - k], padded[half + y + k], weights[k - 1])
        plane[y] /= total
    line = scratch[: size + 2 * half]
    for y in range(size):
        line[half : half + size] = plane[y]
        for k in range(1, half + 1):
            line[half - k] = plane[y, k]
            line[half + size - 1 + k] = plane[y, size - 1 - k]
        for k in range(1, half + 1):
            _add_pair(plane[y], line[half - k :], line[half + k :], weights[k - 1])
        plane[y] /= total


@_njit
def _augmented(images, order, factors, gray, blurred, weights, totals, solarize, threshold, out):  # type: ignore[no-untyped-def]
    count, _, size, _ = images.shape
    scratch = np.empty((size + 2 * weights.shape[1]) * size, np.float32)
    for n in range(count):
        view = out[n]
        view[:] = images[n]
        flat = view.reshape(3, size * size)
        r, g, b = flat[0], flat[1], flat[2]
        for operation in order[n]:
            if operation == 0:
                _blend(r, g, b, factors[n, 0], F(0))
            elif operation == 1:
                _contrast(r, g, b, factors[n, 1])
            elif operation == 2:
                _saturation(r, g, b, factors[n, 2])
            elif operation == 3:
                _hue(r, g, b, factors[n, 3])
        if gray[n]:
            _grayscale(r, g, b)
        if blurred[n]:
            for channel in range(3):
                _blur(view[channel], weights[n], totals[n], scratch)
        if solarize[n]:
            values = view.reshape(3 * size * size)
            for i in range(len(values)):
                values[i] = F(1) - values[i] if values[i] >= threshold[n] else values[i]


def augmented(images: Tensor, *given: Tensor) -> Tensor:
    """`images` (N, 3, S, S) float32 jittered, gray, blurred and solarised, one after another.

    Args:
        given: for every image, (N, ...): the operations of `color.JITTER` by number, in their order, -1 for none; their
            strengths; whether it is gray; whether it is blurred, the weights of its kernel and their sum (see
            `blur.kernel`); whether it is solarised, and from which value on.
    """
    out = torch.empty_like(images)
    _over_rows(_augmented, images.numpy(), *(tensor.numpy() for tensor in given), out.numpy())
    return out
