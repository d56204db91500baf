"""The deterministic transform from an image to the encoder's input."""

from dataclasses import dataclass

from torch import Tensor

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

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to zero mean and unit variance over the training split."""
        mean, std = (constant(tuple(values), images.device)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std
