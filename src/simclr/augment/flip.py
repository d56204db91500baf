"""Horizontal flip."""

from dataclasses import dataclass

import numpy as np

from simclr.augment import Draws, Ints
from simclr.core import params


@dataclass(kw_only=True)
class Params:
    """`augment.flip` of params.yaml."""

    probability: float = params.between(0, 1)


def boxes(boxes: Ints, parameters: Params, draws: Draws, heights: Ints, widths: Ints) -> Ints:
    """Mirror some of `boxes` by a negative width, which is free when they are cut."""
    sign = np.where(draws.occurs(parameters.probability), -1, 1)
    flipped: Ints = boxes * np.stack([np.ones_like(sign)] * 3 + [sign], axis=-1)
    return flipped
