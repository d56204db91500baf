"""Random resized crop (Szegedy et al. 2015, section 6; Chen et al. 2020, appendix A)."""

from dataclasses import dataclass

import numpy as np

from simclr.augment import Draws, Ints
from simclr.core import params

_ATTEMPTS = 10
"""Boxes tried before the largest central one is taken, as in torchvision."""


@dataclass(kw_only=True)
class Params:
    """`augment.crop` of params.yaml."""

    scale: list[float] = params.interval(0.0001, 1)
    ratio: list[float] = params.interval(0.01, 100)


IDENTITY = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}


def boxes(boxes: Ints, parameters: Params, draws: Draws, heights: Ints, widths: Ints) -> Ints:
    """Random boxes that replace `boxes`: their share of the image's area is drawn uniformly from `scale`, their aspect
    ratio, width / height, from `ratio`, uniformly in its logarithm.

    The first of ten attempts that fits into the image; if none does, the largest central box with an allowed aspect
    ratio.
    """
    uniform = draws.uniform("", _ATTEMPTS, 4)  # area, aspect ratio, top, left
    height, width = heights[..., None], widths[..., None]
    low_scale, high_scale = parameters.scale
    area = height * width * (low_scale + (high_scale - low_scale) * uniform[..., 0])
    low, high = np.log(parameters.ratio)
    aspect = np.exp(low + (high - low) * uniform[..., 1])
    box_width = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    box_height = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
    top = np.floor(uniform[..., 2] * (height - box_height + 1)).astype(np.int64)
    left = np.floor(uniform[..., 3] * (width - box_width + 1)).astype(np.int64)
    attempts = np.stack([top, left, box_height, box_width], axis=-1)
    first = np.argmax(fits, axis=-1)[..., None, None]
    fitting = np.take_along_axis(attempts, first, axis=-2)[..., 0, :]

    low_ratio, high_ratio = parameters.ratio
    central_width = np.clip(widths, 1, np.maximum(1, np.rint(heights * high_ratio))).astype(np.int64)
    central_height = np.clip(heights, 1, np.maximum(1, np.rint(widths / low_ratio))).astype(np.int64)
    top, left = (heights - central_height) // 2, (widths - central_width) // 2
    central = np.stack([top, left, central_height, central_width], axis=-1)
    cropped = np.where(fits.any(axis=-1)[..., None], fitting, central)
    cropped[..., 3] *= np.where(boxes[..., 3] < 0, -1, 1)  # a flip may come first
    return cropped
