"""Color jitter: brightness, contrast, saturation and hue, in an order drawn for each view (torchvision's ColorJitter).

On a CPU compiled loops change each view while it is in the cache of one core; sums are of integers, so that they do not
depend on the order. `_jitter_batched` does the same on a GPU.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms import functional

from simclr.augment import Draws, Values, _jitter_batched
from simclr.augment._jitter_batched import OPERATIONS
from simclr.core import params
from simclr.core.compiled import njit

F = np.float32  # Python's numbers would make the arithmetic float64
_ORDERS = np.array(list(itertools.permutations(range(len(OPERATIONS)))))


@dataclass(kw_only=True)
class Params:
    """`augment.jitter` of params.yaml."""

    probability: float = params.between(0, 1)
    brightness: float = params.at_least(0)
    contrast: float = params.at_least(0)
    saturation: float = params.at_least(0)
    hue: float = params.between(0, 0.5)


IDENTITY = dict.fromkeys(OPERATIONS, 0.0)


def draw(parameters: Params, draws: Draws, resolution: int) -> Values:
    """`order` (B, V, 4) int64: the operations by number in the order of application, -1 for none; and `factors`
    (B, V, 4) float32 of the operations by number: for a strength s, factors from max(0, 1 - s) to 1 + s, and for hue
    shifts from -s to s turns."""
    strengths = np.array([getattr(parameters, name) for name in OPERATIONS], np.float64)
    center = np.array([1.0, 1.0, 1.0, 0.0])
    low = np.where(center == 0, -strengths, np.maximum(0, 1 - strengths))
    order = _ORDERS[(draws.uniform("order") * len(_ORDERS)).astype(np.int64)]
    applied = draws.occurs(parameters.probability)[..., None] & np.isin(order, _active(parameters))
    factors = low + (center + strengths - low) * draws.uniform("factors", len(OPERATIONS))
    return {"order": np.where(applied, order, -1), "factors": factors.astype(np.float32)}


def _active(parameters: Params) -> list[int]:
    """The numbers of the operations with a strength above 0."""
    return [number for number, name in enumerate(OPERATIONS) if getattr(parameters, name) > 0]


def prepared(values: Values, parameters: Params) -> Values:
    """The coefficients of `_jitter_batched.chain`."""
    return _jitter_batched.chain(values["order"], values["factors"], _active(parameters))


def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """See `_jitter_batched`."""
    return _jitter_batched.jitter(images, values)


def reference(image: Tensor, parameters: Params, values: Values) -> Tensor:
    """The same by torchvision."""
    for operation in values["order"][values["order"] >= 0]:
        adjust = getattr(functional, f"adjust_{OPERATIONS[operation]}")
        image = adjust(image, float(values["factors"][operation]))
    return image


@njit
def _clamp(value):  # type: ignore[no-untyped-def]
    value = value if value > F(0) else F(0)
    return value if value < F(1) else F(1)


@njit
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return F(0.2989) * red + F(0.587) * green + F(0.114) * blue


@njit
def _blend(r, g, b, factor, rest):  # type: ignore[no-untyped-def]
    for i in range(len(r)):
        r[i] = _clamp(factor * r[i] + rest)
        g[i] = _clamp(factor * g[i] + rest)
        b[i] = _clamp(factor * b[i] + rest)


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
        r[i] = _clamp(factor * r[i] + rest)
        g[i] = _clamp(factor * g[i] + rest)
        b[i] = _clamp(factor * b[i] + rest)


@njit
def _channel(value, chroma, position):  # type: ignore[no-untyped-def]
    # position modulo 6, from [-4, 14)
    position = position - F(12) if position >= F(12) else position
    position = position - F(6) if position >= F(6) else position
    position = position + F(6) if position < F(0) else position
    other = F(4) - position
    return value - chroma * _clamp(position if position < other else other)


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
def kernel(images, order, factors):  # type: ignore[no-untyped-def]
    for n in range(len(images)):
        planes = images[n].reshape(3, -1)
        r, g, b = planes[0], planes[1], planes[2]
        for operation in order[n]:
            if operation == 0:
                _blend(r, g, b, factors[n, 0], F(0))
            elif operation == 1:
                _contrast(r, g, b, factors[n, 1])
            elif operation == 2:
                _saturation(r, g, b, factors[n, 2])
            elif operation == 3:
                _hue(r, g, b, factors[n, 3])
