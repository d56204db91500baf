"""Penalties on the representations h, added to the loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params


@dataclass(kw_only=True)
class PenaltyParams:
    """`pretrain.penalty` of params.yaml."""

    l2: float = params.at_least(0)
    smooth_l1: float = params.at_least(0)


def penalty(h: Tensor, weights: PenaltyParams) -> Tensor:
    """`weights.l2` times the mean of h^2, plus `weights.smooth_l1` times that of smooth_l1(h): a float32 scalar."""
    total = h.new_zeros((), dtype=torch.float32)
    if weights.l2 > 0:
        total = total + weights.l2 * h.float().square().mean()
    if weights.smooth_l1 > 0:
        total = total + weights.smooth_l1 * F.smooth_l1_loss(h.float(), torch.zeros_like(h, dtype=torch.float32))
    return total
