"""The base class of encoders: see `models`."""

from typing import Any

import torch
from torch import Tensor, nn

from simclr.data.batch import Images

SMALL = 64
"""Images of at most so many pixels are objects rather than scenes: they are evaluated whole, and have stems of their
own."""


class Encoder(nn.Module):
    """Maps (N, 3, H, W) float to representations h (N, D)."""

    architecture: dict[str, Any]
    """The arguments that make the same network, untrained, by `Encoder(**architecture)`; they are JSON values."""
    dimension: int
    """D, the size of a representation."""
    crop_share: float
    """Side of the central crop for evaluation, as a share of the image's shorter side."""
    undecayed: tuple[str, ...] = ()
    """Names of parameters with two dimensions or more that are exempt from weight decay and the adaptation of LARS, as
    all parameters with fewer dimensions are."""


def encode(encoder: Encoder, images: Images) -> Tensor:
    """h (N, D) of images of any number of sizes, in their order."""
    parts = [encoder(views) for views in images]
    return torch.cat(parts) if len(parts) > 1 else parts[0]
