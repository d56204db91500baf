"""The random views of SimCLR (Chen et al. 2020, section 3 and appendix A).

Every draw is a function of (seed, epoch, sample, view): see `randomness`. Draws are made on the host, where the
loader needs the boxes; the images are changed on the device, a whole batch at a time.
"""

import itertools
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr import color, crop, fused, params
from simclr.blur import gaussian_blur, kernel
from simclr.randomness import Counter, hashes, uniform

_ORDERS = np.array(list(itertools.permutations(range(len(color.JITTER)))))


@dataclass(kw_only=True)
class ViewParams:
    """`pretrain.views` of params.yaml; strengths as in torchvision's ColorJitter."""

    size: int = params.at_least(1)
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


def by_view(values: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """(B, V, ...) on the host to (V * B, ...) on the device, in the order of the crops: all first views come first."""
    ordered = np.ascontiguousarray(values.swapaxes(0, 1)).reshape(-1, *values.shape[2:])
    return torch.from_numpy(ordered).to(device, non_blocking=True)


def augment(crops: Tensor, draws: Draws, parameters: ViewParams) -> Tensor:
    """Apply what follows crop and flip, in the order of the paper: color jitter, grayscale, blur, solarize.

    Args:
        crops: (V * B, 3, S, S) float32 in [0, 1], all first views before all second ones.

    Returns:
        The views, same shape and range.
    """
    active = [
        number
        for number, name in enumerate(("brightness", "contrast", "saturation", "hue"))
        if getattr(parameters, name) > 0
    ]
    return (_one_by_one if crops.device.type == "cpu" else _all_at_once)(crops, draws, parameters, active)


def _one_by_one(crops: Tensor, draws: Draws, parameters: ViewParams, active: list[int]) -> Tensor:
    def rows(values: npt.NDArray[np.generic]) -> Tensor:
        return by_view(values, crops.device)

    order = np.where(draws.jitter[..., None] & np.isin(draws.order, active), draws.order, -1)
    weights, totals = kernel(crops.shape[-1], rows(draws.sigma).float())
    threshold = torch.full((len(crops),), parameters.solarize_threshold)
    return fused.augmented(
        crops, rows(order), rows(draws.factors).float(), rows(draws.grayscale), rows(draws.blur),
        weights, totals, rows(draws.solarize), threshold,
    )  # fmt: skip


def _all_at_once(crops: Tensor, draws: Draws, parameters: ViewParams, active: list[int]) -> Tensor:
    def on_device(values: npt.NDArray[np.generic]) -> Tensor:
        return by_view(values, crops.device)

    def where(mask: npt.NDArray[np.bool_], changed: Tensor, images: Tensor) -> Tensor:
        return torch.where(on_device(mask)[:, None, None, None], changed, images)

    images = crops
    if parameters.jitter > 0 and active:
        images = color.jitter(images, on_device(draws.factors).float(), _groups(draws, active, crops.device))
    if parameters.grayscale > 0:
        images = where(draws.grayscale, color.grayscale(images).expand_as(images), images)
    if parameters.blur > 0:
        blurred = torch.from_numpy(np.flatnonzero(draws.blur.T)).to(crops.device, non_blocking=True)
        sigmas = on_device(draws.sigma).float()
        images = images.index_copy(0, blurred, gaussian_blur(images[blurred], sigmas[blurred]))
    if parameters.solarize > 0:
        images = where(draws.solarize, color.solarize(images, parameters.solarize_threshold), images)
    return images


def _groups(draws: Draws, active: list[int], device: torch.device) -> list[tuple[int, Tensor]]:
    """Which of the V * B rows undergo which color operation, in the order of application: see `color.jitter`."""
    jittered = draws.jitter.T.reshape(-1)
    order = draws.order.swapaxes(0, 1).reshape(-1, len(color.JITTER))
    groups = [
        (operation, np.flatnonzero(jittered & (order[:, position] == operation)))
        for position in range(order.shape[1])
        for operation in active
    ]
    return [
        (operation, torch.from_numpy(rows).to(device, non_blocking=True)) for operation, rows in groups if len(rows)
    ]
