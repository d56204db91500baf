"""A network that follows another one slowly, and makes what that is compared with: keys of MoCo, targets of BYOL."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from simclr.data.batch import Images
from simclr.features.encoder import Encoder
from simclr.learning.projection_head import Head, project


class MovingAverage(nn.Module):
    """A copy of `encoder` and `head` as they are now, without gradient."""

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = deepcopy(encoder).requires_grad_(False), deepcopy(head).requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Images, keys: Tensor) -> Tensor:
        """Projections (N, d) of the images of a batch: see `Method.forward`."""
        return project(self.encoder, self.head, images, keys)[1]

    @torch.no_grad()
    def follow(self, encoder: Encoder, head: Head, share: float | Tensor) -> None:
        """Move weights and running statistics to those of the network, by `share` of the way."""
        averages, values = _state(self.encoder, self.head), _state(encoder, head)
        torch._foreach_mul_(averages, 1 - share)
        torch._foreach_add_(averages, torch._foreach_mul(values, share))


def _state(*networks: nn.Module) -> list[Tensor]:
    """Weights and running statistics."""
    tensors = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return [tensor for tensor in tensors if tensor.is_floating_point()]
