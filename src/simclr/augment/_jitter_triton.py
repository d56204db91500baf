"""The chain of `_jitter_batched` as one kernel for GPUs.

A view's pixels stay in registers from one operation to the next: they are read twice, once for the mean luma that
contrast needs and once to change them, and written once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
"""Pixels that a program holds in registers at once."""


@triton.jit
def _clamp(x):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit  # type: ignore[untyped-decorator]
def _blend_slots(r, g, b, mean, factors, lumas, contrasts, first: tl.constexpr, stop: tl.constexpr):  # type: ignore[no-untyped-def]
    """Slots `first` to `stop` of one view, with the `mean` for contrast; and the luma before a contrast slot."""
    contrast_luma = tl.zeros_like(r)
    for slot in range(first, stop):
        weights = lumas + 3 * slot
        luma = tl.load(weights) * r + tl.load(weights + 1) * g + tl.load(weights + 2) * b
        contrast = tl.load(contrasts + slot) != 0
        contrast_luma += tl.where(contrast, luma, 0.0)
        other = tl.where(contrast, mean, luma)
        factor = tl.load(factors + slot)
        r, g, b = _clamp(factor * r + other), _clamp(factor * g + other), _clamp(factor * b + other)
    return r, g, b, contrast_luma


@triton.jit
def _channel(value, chroma, place):  # type: ignore[no-untyped-def]
    place = place - 6.0 * tl.floor(place * (1.0 / 6.0))
    return value - chroma * _clamp(tl.minimum(place, 4.0 - place))


@triton.jit
def _turn_hue(r, g, b, shift):  # type: ignore[no-untyped-def]
    value = tl.maximum(tl.maximum(r, g), b)
    chroma = value - tl.minimum(tl.minimum(r, g), b)
    difference = tl.where(value == r, g - b, tl.where(value == g, b - r, r - g))
    middle = tl.where(value == r, 0.0, tl.where(value == g, 2.0, 4.0))
    hue = middle + difference / tl.where(chroma == 0.0, 1.0, chroma) + shift
    return _channel(value, chroma, hue + 5.0), _channel(value, chroma, hue + 3.0), _channel(value, chroma, hue + 1.0)


@triton.jit  # type: ignore[untyped-decorator]
def _jitter_pixels(  # type: ignore[no-untyped-def]
    r, g, b, mean, factors, lumas, contrasts, hues, slots: tl.constexpr, before: tl.constexpr, hue: tl.constexpr
):
    r, g, b, first = _blend_slots(r, g, b, mean, factors, lumas, contrasts, 0, before)
    if hue:
        r, g, b = _turn_hue(r, g, b, tl.load(hues))
    r, g, b, second = _blend_slots(r, g, b, mean, factors, lumas, contrasts, before, slots)
    return r, g, b, first + second


@triton.jit  # type: ignore[untyped-decorator]
def _jitter(  # type: ignore[no-untyped-def]
    images, factors, lumas, contrasts, hues, out, pixels,
    slots: tl.constexpr, before: tl.constexpr, hue: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(0)
    source, target = images + view.to(tl.int64) * 3 * pixels, out + view.to(tl.int64) * 3 * pixels
    factors, lumas, contrasts, hues = (
        factors + slots * view, lumas + 3 * slots * view, contrasts + slots * view, hues + 3 * view
    )  # fmt: skip
    mean = 0.0
    if slots > 0:
        # a view has at most one contrast, and the operations before it do not need the mean
        total = tl.zeros([block], tl.float32)
        for start in range(0, pixels, block):
            at = start + tl.arange(0, block)
            inside = at < pixels
            r = tl.load(source + at, mask=inside, other=0.0)
            g = tl.load(source + pixels + at, mask=inside, other=0.0)
            b = tl.load(source + 2 * pixels + at, mask=inside, other=0.0)
            r, g, b, luma = _jitter_pixels(r, g, b, 0.0, factors, lumas, contrasts, hues, slots, before, hue)
            total += tl.where(inside, luma, 0.0)
        mean = tl.sum(total) / pixels
    for start in range(0, pixels, block):
        at = start + tl.arange(0, block)
        inside = at < pixels
        r = tl.load(source + at, mask=inside, other=0.0)
        g = tl.load(source + pixels + at, mask=inside, other=0.0)
        b = tl.load(source + 2 * pixels + at, mask=inside, other=0.0)
        r, g, b, luma = _jitter_pixels(r, g, b, mean, factors, lumas, contrasts, hues, slots, before, hue)
        tl.store(target + at, r, mask=inside)
        tl.store(target + pixels + at, g, mask=inside)
        tl.store(target + 2 * pixels + at, b, mask=inside)


def jitter(images: Tensor, factors: Tensor, lumas: Tensor, contrasts: Tensor, hues: Tensor | None) -> Tensor:
    """`_jitter_batched.step_by_step` on a GPU."""
    images = images.contiguous()
    out = torch.empty_like(images)
    slots = factors.shape[1]
    _jitter[(len(images),)](
        images, factors.contiguous(), lumas.contiguous(), contrasts.contiguous().view(torch.uint8),
        images if hues is None else hues.contiguous(),  # any pointer: without hues none is read
        out, images.shape[2] * images.shape[3],
        slots=slots, before=slots // 2 if hues is not None else 0, hue=hues is not None, block=_BLOCK,
    )  # fmt: skip
    return out
