"""SimCLR (Chen et al. 2020): an encoder and a projection head."""

import torch
from torch import Tensor, nn

from simclr.models.projection_head import Head
from simclr.models.resnet import Encoder


class SimCLR(nn.Module):
    """Encoder f and projection head g: views (N, 3, S, S), and (N,) keys of their dropout, to h (N, D) and z (N, d)."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(images)
        with torch.autocast(h.device.type, enabled=False):  # bf16 has 8 bits: of z they are noise in the gradient
            return h, self.head(h.to(torch.promote_types(h.dtype, torch.float32)), keys)
