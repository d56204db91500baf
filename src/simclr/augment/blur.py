"""Gaussian blur, with a standard deviation drawn for each view (Chen et al. 2020, appendix A)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional

from simclr.augment import Draws, Values
from simclr.core import params
from simclr.core.compiled import njit
from simclr.device import precision

_KERNEL_SHARE = 0.1
"""The kernel's width as a share of the image's (Chen et al. 2020, appendix A)."""


@dataclass(kw_only=True)
class Params:
    """`augment.blur` of params.yaml."""

    probability: float = params.between(0, 1)
    sigma: list[float] = params.interval(0.01, 100)


IDENTITY = {"sigma": [0.01, 0.01]}


def draw(parameters: Params, draws: Draws, resolution: int) -> Values:
    """`sigmas` (B, V) float32, standard deviations in pixels drawn uniformly from `sigma`, or 0 where nothing happens;
    the `weights` (B, V, half) float32 of their filters at the distances 1, 2, ... from a pixel, which itself has weight
    1; and the `totals` (B, V) of all weights."""
    low, high = parameters.sigma
    deviations = np.where(draws.occurs(parameters.probability), low + (high - low) * draws.uniform("sigma"), 0)
    sigmas = torch.from_numpy(deviations.astype(np.float32))
    weights = [torch.exp(-0.5 * (tap / sigmas) ** 2) for tap in range(1, kernel_size(resolution) // 2 + 1)]
    totals = 1 + 2 * sum(weights, torch.zeros_like(sigmas))
    stacked = torch.stack(weights, dim=-1) if weights else sigmas.new_empty(*sigmas.shape, 0)
    return {"sigmas": sigmas.numpy(), "weights": stacked.numpy(), "totals": totals.numpy()}


def prepared(values: Values, parameters: Params) -> Values:
    """`taps` (N, half + 1): the normalised weights of the distances 0, 1, 2, ...; 1, 0, 0, ... without blur."""
    return {"taps": np.insert(values["weights"], 0, 1, axis=-1) / values["totals"][..., None]}


def kernel_size(size: int) -> int:
    """The odd number of taps for images of `size` pixels: at least 3, but at most as many as reflected borders
    allow, which is one for a single pixel."""
    return min(2 * size - 1, max(3, 2 * round((_KERNEL_SHARE * size - 1) / 2) + 1))


@cache
def _reflected(size: int, device: torch.device) -> Tensor:
    """(half + 1, size * size): how often pixel j is at each distance from pixel i, with reflected borders."""
    half = kernel_size(size) // 2
    count = np.zeros((half + 1, size, size), np.float32)
    padded = np.pad(np.arange(size), half, mode="reflect")
    for i in range(size):
        for tap in range(-half, half + 1):
            count[abs(tap), i, padded[half + i + tap]] += 1
    return torch.from_numpy(count).flatten(1).to(device)


def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Blur by the `taps` (N, half + 1), with reflected borders.

    Each direction is a product of the image with a matrix (S, S): one pass on a GPU, where a sum of shifted images
    takes one pass for each tap. The result is channels last in memory.
    """
    count, channels, size, _ = images.shape
    with precision.full(images.device):
        matrices = (values["taps"] @ _reflected(size, images.device)).view(count, size, size)
        for _ in range(2):
            # the last axis is blurred and becomes the first: from (channel, y, x) to (x, channel, y) to (y, x, channel)
            images = torch.bmm(matrices, images.reshape(count, channels * size, size).mT)
    return images.view(count, size, size, channels).permute(0, 3, 1, 2)


def reference(image: Tensor, parameters: Params, values: Values) -> Tensor:
    """The same by torchvision."""
    if values["sigmas"] == 0:
        return image
    blurred: Tensor = functional.gaussian_blur(image, kernel_size(image.shape[-1]), float(values["sigmas"]))
    return blurred


@njit
def _add_pair(out, before, after, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += (before[i] + after[i]) * weight


@njit
def _blur(plane, weights, total, scratch):  # type: ignore[no-untyped-def]
    """Blur `plane` (S, S) by the `weights` (half,) of the distances 1 to half; `scratch`: (S + 2 half) S elements."""
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
def kernel(images, sigmas, weights, totals):  # type: ignore[no-untyped-def]
    size = images.shape[-1]
    scratch = np.empty((size + 2 * weights.shape[1]) * size, np.float32)
    for n in range(len(images)):
        if sigmas[n] > 0:
            for channel in range(3):
                _blur(images[n, channel], weights[n], totals[n], scratch)
