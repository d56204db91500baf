"""The deterministic transform from an image to the encoder's input."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simclr.core import rgb
from simclr.data import crop
from simclr.device.constant import constant


@dataclass
class EvalTransform:
    """The transform for evaluation: central crop, resize, normalisation per channel."""

    size: int
    """Side of the input in pixels."""
    crop_share: float
    """Side of the central crop as a share of the image's shorter side."""
    mean: list[float]
    std: list[float]

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image of any size and mode to (3, S, S): the encoder's input, but for the rounding of pixels.

        Raises:
            ValueError, OSError: as `rgb.to_rgb`.
        """
        upright = Image.fromarray(rgb.to_rgb(image))
        [(top, left, height, width)] = crop.central_boxes(
            np.array([upright.height]), np.array([upright.width]), self.crop_share
        ).tolist()
        box = (left, top, left + width, top + height)
        square = upright.resize((self.size, self.size), Image.Resampling.BILINEAR, box)
        pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)
        return self.normalise(pixels[None] / 255)[0]

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to zero mean and unit variance over the training split."""
        return self.normalise_(images.clone())

    def normalise_(self, images: Tensor) -> Tensor:
        """`normalise` in place, for batches of which two would not fit into memory."""
        mean, std = (constant(tuple(values), images.device)[:, None, None] for values in (self.mean, self.std))
        return images.sub_(mean).div_(std)
