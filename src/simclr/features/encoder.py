"""The base class of encoders: see `models`."""

from typing import Any

from torch import nn

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
