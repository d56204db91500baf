"""Fine-tuning from a middle layer of the projection head."""

import torch
from torch import Tensor

from simclr.features import encoder_file
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.projection_head import Head


class EncoderWithHead(Encoder):
    """An encoder f and the first layers of a projection head, to be trained as one network (SimCLRv2: Chen et al. 2020,
    "Big Self-Supervised Models are Strong Semi-Supervised Learners", section 2).

    Args:
        layers: `count` layers of `head`, at least one.
    """

    def __init__(self, encoder: Encoder, head: Head, count: int) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, head.first(count)
        self.dimension = head.shape.hidden
        self.crop_share = encoder.crop_share

    def forward(self, images: Tensor) -> Tensor:
        h = self.encoder(images)
        with torch.autocast(h.device.type, enabled=False):  # as in pretraining: see `projection_head.project`
            values: Tensor = self.layers(h.to(torch.promote_types(h.dtype, torch.float32)))
            return values


def join(encoder: Encoder, head: Head | None, count: int) -> Encoder:
    """`encoder` with the first `count` layers of its `head`; with none of them, the encoder itself."""
    return EncoderWithHead(encoder, head, count) if head and count else encoder


def untrained(encoder: Encoder, head: Head | None, count: int, seed: int) -> Encoder:
    """The network of `join` with initial weights drawn by `seed`."""
    fresh = encoder_file.untrained(encoder, seed)
    return join(fresh, projection_head.build(head.shape, head.dimension) if head else None, count)
