"""Color jitter of a batch on a GPU, with strengths and an order of operations of its own for every view.

All views go through the same operations, whatever was drawn, so that shapes are fixed and the GPU never waits for the
host.

Brightness, contrast and saturation are one operation with different coefficients: x becomes f x + r g, held to
[0, 1]. For brightness g is black; for contrast it is the mean luma of the image, and for saturation its luma, with
r = 1 - f; f = 1 and r = 0 is the identity. Hue is another operation, at any place among these three. So the chain
is: as many blends as there can be, a turn of the hue, and as many blends again, of which a view uses some.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Optional

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.augment._color import LUMA, luma
from simclr.device import kernels
from simclr.device.constant import constant

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
"""The operations of color jitter by number."""
_CONTRAST, _HUE = OPERATIONS.index("contrast"), OPERATIONS.index("hue")


def chain(
    order: npt.NDArray[np.int64], factors: npt.NDArray[np.float32], active: Sequence[int]
) -> dict[str, npt.NDArray[np.generic]]:
    """The coefficients of the chain, for N views.

    Args:
        order: (N, 4), operations by number in the order of application; -1 for none.
        factors: (N, 4), of brightness, contrast, saturation and the shift of hue in turns.
        active: the numbers that may occur in `order`.

    Returns:
        `factors` (N, K), `lumas` (N, K, 3) and `contrasts` (N, K) of the K blends: f, r times the weights of the luma,
        and whether g is its mean. If hue is active, `hues` (N, 3), in sixths of a turn: the shift, plus 0 for red, 2
        for green and 4 for blue; half of the blends come before it. Floats are float32.
    """
    is_hue = order == _HUE
    is_blend = (order >= 0) & ~is_hue
    after_hue = is_hue.cumsum(axis=1) > 0
    blends = len({*active} - {_HUE})
    # the slot of each operation: blends before the hue fill the first half in order, blends after it the second
    place = (
        np.where(after_hue, blends + (is_blend & after_hue).cumsum(axis=1), (is_blend & ~after_hue).cumsum(axis=1)) - 1
    )
    slots = 2 * blends if _HUE in active else blends
    slot_factors, slot_lumas = np.ones((len(order), slots), np.float32), np.zeros((len(order), slots, 3), np.float32)
    slot_contrasts = np.zeros((len(order), slots), np.bool_)
    rows, positions = is_blend.nonzero()
    operations, slot = order[rows, positions], place[rows, positions]
    factor = factors[rows, operations]
    rest = np.where(operations == OPERATIONS.index("brightness"), 0, 1 - factor)
    slot_factors[rows, slot] = factor
    slot_lumas[rows, slot] = rest[:, None] * np.array(LUMA, np.float32)
    slot_contrasts[rows, slot] = operations == _CONTRAST
    coefficients = {"factors": slot_factors, "lumas": slot_lumas, "contrasts": slot_contrasts}
    if _HUE in active:
        shift = np.where(is_hue.any(axis=1), factors[:, _HUE], 0)
        coefficients["hues"] = (6 * shift[:, None] + np.array([0, 2, 4])).astype(np.float32)
    return coefficients


def jitter(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Color jitter by the coefficients that `chain` returns.

    On a GPU with a working Triton, which needs a C compiler, in one kernel; else step by step.

    Args:
        images: (N, 3, H, W) float32 in [0, 1].
        values: the result of `chain`; `hues` is optional.

    Returns:
        The same shape and range.
    """
    coefficients = values["factors"], values["lumas"], values["contrasts"], values.get("hues")
    if images.device.type == "cuda" and _triton_works():
        jittered: Tensor = _in_one_kernel(images, *coefficients)
        return jittered
    return step_by_step(images, *coefficients)


def step_by_step(images: Tensor, factors: Tensor, lumas: Tensor, contrasts: Tensor, hues: Tensor | None) -> Tensor:
    """`jitter`, one operation of torch after another."""
    slots = list(zip(factors.unbind(1), lumas.unbind(1), contrasts.unbind(1), strict=True))
    before = len(slots) // 2 if hues is not None else 0
    for slot in slots[:before]:
        images = _blend(images, *slot)
    if hues is not None:
        images = _turn_hue(images, hues)
    for slot in slots[before:]:
        images = _blend(images, *slot)
    return images


def _blend(images: Tensor, factors: Tensor, lumas: Tensor, contrasts: Tensor) -> Tensor:
    own = luma(images, lumas)
    other = torch.where(contrasts[:, None, None, None], own.mean(dim=(2, 3), keepdim=True), own)
    return torch.addcmul(other, images, factors[:, None, None, None]).clamp_(0, 1)


def _turn_hue(images: Tensor, hues: Tensor) -> Tensor:
    """In HSV, hue in sixths of a turn is 2 n + (next channel - the one before) / chroma, where n = 0, 1, 2 is the
    channel of the largest value v. A channel is v - chroma max(0, min(k, 4 - k, 1)) with k = (m + hue) mod 6 and
    m = 5, 3, 1 for R, G, B.
    """
    least, value = torch.aminmax(images, dim=1, keepdim=True)
    chroma = value - least
    # the vector product with (1, 1, 1) is (G - B, B - R, R - G)
    differences = torch.linalg.cross(images, constant((1, 1, 1), images.device).view(1, 3, 1, 1), dim=1)
    hue_by_channel = torch.addcdiv(hues[..., None, None], differences, chroma.clamp(min=torch.finfo(chroma.dtype).tiny))
    hue = hue_by_channel.masked_fill_(images < value, -torch.inf).amax(dim=1, keepdim=True)
    place = (hue + constant((5, 3, 1), images.device)[:, None, None]).remainder_(6)
    return torch.addcmul(value, chroma, torch.minimum(place, 4 - place).clamp_(0, 1), value=-1)


@torch.library.custom_op("simclr::jitter", mutates_args=(), device_types="cuda")
def _in_one_kernel(
    images: Tensor,
    factors: Tensor,
    lumas: Tensor,
    contrasts: Tensor,
    hues: Optional[Tensor],  # noqa: UP045 (torch 2.11 reads the signature)
) -> Tensor:
    from simclr.augment import _jitter_triton  # imports Triton, which a CPU does not need

    return _jitter_triton.jitter(images, factors, lumas, contrasts, hues)


@_in_one_kernel.register_fake
def _(images: Tensor, *_: Tensor | None) -> Tensor:
    return torch.empty_like(images)


@cache
def _triton_works() -> bool:
    """Whether Triton can compile a kernel here."""

    def probe() -> None:
        slot = torch.zeros(1, 1, device="cuda")
        _in_one_kernel(torch.zeros(1, 3, 1, 1, device="cuda"), slot, slot.expand(1, 1, 3), slot.bool(), None)

    return kernels.work_here(probe, "the views are")
