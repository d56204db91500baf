"""The random views of SimCLR (Chen et al. 2020, section 3 and appendix A).

Every draw is a function of (seed, epoch, sample, view): see `randomness`. Draws are made on the host, where the
loader needs the boxes; the images are changed on the device, on a GPU a whole batch at a time.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.augment import color, kernels
from simclr.augment.blur import gaussian_blur, kernel, taps
from simclr.core import params
from simclr.core.randomness import Counter, hashes, uniform
from simclr.data import crop

Scalar = TypeVar("Scalar", bound=np.generic)
_ORDERS = np.array(list(itertools.permutations(range(len(color.JITTER)))))


@dataclass(kw_only=True)
class ViewParams:
    """`pretrain.views` of params.yaml; strengths as in torchvision's ColorJitter."""

    resolution: int = params.between(1, 4096)
    crop_scale: list[float] = params.interval(0.0001, 1)
    crop_ratio: list[float] = params.interval(0.01, 100)
    flip: float = params.between(0, 1)
    jitter: float = params.between(0, 1)
    brightness: float = params.at_least(0)
    contrast: float = params.at_least(0)
    saturation: float = params.at_least(0)
    hue: float = params.between(0, 0.5)
    grayscale: float = params.between(0, 1)
    blur: float = params.between(0, 1)
    blur_sigma: list[float] = params.interval(0.01, 100)
    solarize: float = params.between(0, 1)
    solarize_threshold: float = params.between(0, 1)


class _Purpose(IntEnum):
    """What a draw is for: the last counters of its hash. Appended to, never renumbered, so that draws stay."""

    CROP = 0
    FLIP = 1
    JITTER = 2
    ORDER = 3
    FACTORS = 4
    GRAYSCALE = 5
    BLUR = 6
    SIGMA = 7
    SOLARIZE = 8
    DROPOUT = 9


@dataclass(frozen=True)
class Draws:
    """What happens to each of the V views of B samples; arrays are (B, V) unless said otherwise."""

    boxes: npt.NDArray[np.int64]
    """(B, V, 4): what is cut, mirrored or not: see `crop`."""
    jitter: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64]
    """(B, V, 4): the color operations, numbered as in `color.JITTER`, in the order of application."""
    factors: npt.NDArray[np.float64]
    """(B, V, 4): the strengths of those operations, in the order of `color.JITTER`."""
    grayscale: npt.NDArray[np.bool_]
    blur: npt.NDArray[np.bool_]
    sigma: npt.NDArray[np.float64]
    solarize: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.int64]
    """What dropout in the head is drawn from: see `randomness.reaches`."""


def draw(
    parameters: ViewParams,
    heights: npt.NDArray[np.int64],
    widths: npt.NDArray[np.int64],
    seed: int,
    epoch: int,
    samples: npt.NDArray[np.int64],
    views: int = 2,
) -> Draws:
    """The draws for `samples` (B,), indices into the whole data set, whose images measure `heights` x `widths`."""

    def counters(purpose: _Purpose, *extra: npt.NDArray[np.int64]) -> tuple[Counter, ...]:
        axes = (np.newaxis,) * len(extra)
        sample = samples[(slice(None), np.newaxis, *axes)]
        view = np.arange(views)[(np.newaxis, slice(None), *axes)]
        return seed, epoch, sample, view, int(purpose), *extra

    def fresh(purpose: _Purpose, *extra: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return uniform(*counters(purpose, *extra))

    def occurs(purpose: _Purpose, probability: float) -> npt.NDArray[np.bool_]:
        return fresh(purpose) < probability

    strengths = np.array(
        [parameters.brightness, parameters.contrast, parameters.saturation, parameters.hue], np.float64
    )
    center = np.array([1.0, 1.0, 1.0, 0.0])
    low = np.where(center == 0, -strengths, np.maximum(0, 1 - strengths))
    low_sigma, high_sigma = parameters.blur_sigma
    shape = (len(samples), views)
    boxes = crop.random_boxes(
        fresh(_Purpose.CROP, np.arange(crop.ATTEMPTS)[:, None], np.arange(4)[None, :]),
        np.broadcast_to(heights[:, None], shape),
        np.broadcast_to(widths[:, None], shape),
        (parameters.crop_scale[0], parameters.crop_scale[1]),
        (parameters.crop_ratio[0], parameters.crop_ratio[1]),
    )
    return Draws(
        boxes=crop.mirrored(boxes, occurs(_Purpose.FLIP, parameters.flip)),
        jitter=occurs(_Purpose.JITTER, parameters.jitter),
        order=_ORDERS[(fresh(_Purpose.ORDER) * len(_ORDERS)).astype(np.int64)],
        factors=low + (center + strengths - low) * fresh(_Purpose.FACTORS, np.arange(4)),
        grayscale=occurs(_Purpose.GRAYSCALE, parameters.grayscale),
        blur=occurs(_Purpose.BLUR, parameters.blur),
        sigma=low_sigma + (high_sigma - low_sigma) * fresh(_Purpose.SIGMA),
        solarize=occurs(_Purpose.SOLARIZE, parameters.solarize),
        keys=hashes(*counters(_Purpose.DROPOUT)).view(np.int64),
    )


def by_view(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """(B, V, ...) to (V * B, ...), in the order of the crops: all first views come first."""
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(-1, *values.shape[2:])


def rows(draws: Draws, parameters: ViewParams, device: torch.device) -> dict[str, npt.NDArray[np.generic]]:
    """What `augment` on `device` and dropout want to know of each view, (V * B, ...), in the order of the crops.

    Made on the host, where the loader's threads have time for it, so that a GPU only has to be sent it.
    """
    active = [number for number, name in enumerate(color.JITTER) if getattr(parameters, name) > 0]
    order = by_view(np.where(draws.jitter[..., None] & np.isin(draws.order, active), draws.order, -1))
    factors = by_view(draws.factors).astype(np.float32)
    gray, blurred, solarized = by_view(draws.grayscale), by_view(draws.blur), by_view(draws.solarize)
    sigmas = by_view(draws.sigma).astype(np.float32)
    found: dict[str, npt.NDArray[np.generic]] = {"keys": by_view(draws.keys)}
    if device.type == "cpu":
        weights, totals = kernel(parameters.resolution, torch.from_numpy(sigmas))
        return found | {
            "order": order, "factors": factors, "gray": gray, "blurred": blurred, "weights": weights.numpy(),
            "totals": totals.numpy(), "solarized": solarized,
        }  # fmt: skip
    if parameters.jitter > 0 and active:
        found |= color.chain(order, factors, active)
    if parameters.grayscale > 0:
        found["gray"] = gray
    if parameters.blur > 0:
        found["taps"] = taps(parameters.resolution, sigmas, blurred)
    if parameters.solarize > 0:
        found["thresholds"] = np.where(solarized, parameters.solarize_threshold, np.inf).astype(np.float32)
    return found


def augment(crops: Tensor, rows: Mapping[str, Tensor], parameters: ViewParams) -> Tensor:
    """Apply what follows crop and flip, in the order of the paper: color jitter, grayscale, blur, solarize.

    On a CPU a view's bits do not depend on the batch that it is in, nor on threads or ranks. On a GPU the views are the
    same up to rounding, some 1e-6 (where a value is at the very threshold of solarize, that can invert it).

    Args:
        crops: (V * B, 3, S, S) float32 in [0, 1], all first views before all second ones.
        rows: what the function of that name says of these views, on the same device.

    Returns:
        The views, same shape and range.
    """
    return _one_by_one(crops, rows, parameters) if crops.device.type == "cpu" else _all_at_once(crops, rows)


def _one_by_one(crops: Tensor, rows: Mapping[str, Tensor], parameters: ViewParams) -> Tensor:
    threshold = torch.full((len(crops),), parameters.solarize_threshold)
    names = ("order", "factors", "gray", "blurred", "weights", "totals", "solarized")
    return kernels.augmented(crops, *(rows[name] for name in names), threshold)


def _all_at_once(crops: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
    images = color.jitter(crops, rows)
    if "taps" in rows:
        images = gaussian_blur(images, rows["taps"])
    if "thresholds" in rows:
        images = color.solarize(images, rows["thresholds"])
    return images
