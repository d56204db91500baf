"""Color and blur of views on a CPU: each view is changed by compiled loops while it lies in the cache of one core.

The results are those of `color` and `blur` up to rounding. There each operation is a pass over the batch, as a GPU
wants it; on a CPU the passes over memory would take the time. And here a view's bits depend on nothing but its own
pixels and draws: sums are taken in one order, or of integers, whatever the batch and the number of threads.

A view is three arrays, r, g and b.
"""

import numpy as np
import torch
from torch import Tensor

from simclr.core import thread_pool
from simclr.core.compiled import njit

_over_rows = thread_pool.row_pool("views")
F = np.float32  # without it, numbers of Python would make the arithmetic that of float64


@njit
def _clamped(value):  # type: ignore[no-untyped-def]
    value = value if value > F(0) else F(0)
    return value if value < F(1) else F(1)


@njit
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return F(0.2989) * red + F(0.587) * green + F(0.114) * blue


@njit
def _blend(r, g, b, factor, rest):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        r[i] = _clamped(factor * r[i] + rest)
        g[i] = _clamped(factor * g[i] + rest)
        b[i] = _clamped(factor * b[i] + rest)


@njit
def _contrast(r, g, b, factor):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    for i in range(len(r)):
        total += np.int64(np.rint(_luma(r[i], g[i], b[i]) * F(2**24)))
    _blend(r, g, b, factor, (F(1) - factor) * (F(total) / F(2**24 * len(r))))


@njit
def _saturation(r, g, b, factor):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        rest = (F(1) - factor) * _luma(r[i], g[i], b[i])
        r[i] = _clamped(factor * r[i] + rest)
        g[i] = _clamped(factor * g[i] + rest)
        b[i] = _clamped(factor * b[i] + rest)


@njit
def _channel(value, chroma, position):  # type: ignore[no-untyped-def]
    # position modulo 6, from [-4, 14)
    position = position - F(12) if position >= F(12) else position
    position = position - F(6) if position >= F(6) else position
    position = position + F(6) if position < F(0) else position
    other = F(4) - position
    return value - chroma * _clamped(position if position < other else other)


@njit
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


@njit
def _grayscale(r, g, b):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        luma = _luma(r[i], g[i], b[i])
        r[i], g[i], b[i] = luma, luma, luma


@njit
def _add_pair(out, before, after, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += (before[i] + after[i]) * weight


@njit
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


@njit
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
