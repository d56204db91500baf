"""Random conversion to grayscale."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from simclr.augment import Draws, Values
from simclr.augment._color import LUMA, luma
from simclr.core import params
from simclr.core.compiled import njit
from simclr.device.constant import constant

F = np.float32  # Python's numbers would make the arithmetic float64


@dataclass(kw_only=True)
class Params:
    """`augment.grayscale` of params.yaml."""

    probability: float = params.between(0, 1)


def draw(parameters: Params, draws: Draws, resolution: int) -> Values:
    """`gray` (B, V)."""
    return {"gray": draws.occurs(parameters.probability)}


def apply(images: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Put the luma into all channels of the views that are `gray` (N,)."""
    return torch.where(values["gray"][:, None, None, None], luma(images, constant(LUMA, images.device)), images)


def reference(image: Tensor, parameters: Params, values: Values) -> Tensor:
    """The same by torchvision."""
    gray: Tensor = rgb_to_grayscale(image, num_output_channels=3)
    return gray if values["gray"] else image


@njit
def kernel(images, gray):  # type: ignore[no-untyped-def]
    for n in range(len(images)):
        if gray[n]:
            planes = images[n].reshape(3, -1)
            r, g, b = planes[0], planes[1], planes[2]
            for i in range(len(r)):
                value = F(0.2989) * r[i] + F(0.587) * g[i] + F(0.114) * b[i]
                r[i], g[i], b[i] = value, value, value
