"""What every encoder is: see `models`."""

from typing import Any

from torch import nn

SMALL = 64
"""Images of at most so many pixels are objects rather than scenes: they are evaluated whole, and have stems of their
own."""


class Encoder(nn.Module):
    """Maps (N, 3, H, W) float to representations h (N, D)."""

    architecture: dict[str, Any]
    """`Encoder(**architecture)` is the same network, untrained; JSON can hold it."""
    dimension: int
    """D."""
    crop_share: float
    """Side of the central square that is evaluated, as a share of the image's shorter side."""
    undecayed: tuple[str, ...] = ()
    """Names of the parameters of two dimensions and more that weight decay and the adaptation of LARS spare, as they
    spare all of fewer dimensions."""
