"""Solarization: inversion of the values above a threshold (Grill et al. 2020, appendix B, for BYOL)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional

from simclr.augment import Draws, Values
from simclr.core import params
from simclr.core.compiled import njit


@dataclass(kw_only=True)
class Params:
    """`augment.solarize` of params.yaml."""

    probability: float = params.between(0, 1)
    threshold: float = params.between(0, 1)


IDENTITY = {"threshold": 256 / 255}  # above white, which is inverted at 1


def draw(parameters: Params, draws: Draws, resolution: int) -> Values:
    """`thresholds` (B, V) float32, infinite for views that stay as they are."""
    occurs = draws.occurs(parameters.probability)
    return {"thresholds": np.where(occurs, parameters.threshold, np.inf).astype(np.float32)}


def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Invert the values that are at least `thresholds` (N,)."""
    return torch.where(images >= values["thresholds"][:, None, None, None], 1 - images, images)


def reference(image: Tensor, parameters: Params, values: Values) -> Tensor:
    """The same by torchvision."""
    solarized: Tensor = functional.solarize(image, parameters.threshold)
    return solarized if np.isfinite(values["thresholds"]) else image


@njit
def kernel(images, thresholds):  # type: ignore[no-untyped-def]
    for n in range(len(images)):
        if thresholds[n] < np.inf:
            values = images[n].reshape(-1)
            for i in range(len(values)):
                values[i] = np.float32(1) - values[i] if values[i] >= thresholds[n] else values[i]
