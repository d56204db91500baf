"""Decoupled contrastive learning (Yeh et al. 2022): NT-Xent without the positive in its denominator.

NT-Xent multiplies every gradient by 1 - exp(p_i - d_i), which is small for an easy positive and few negatives, as in
small batches; without the positive in the denominator the factor is 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from simclr.core import params
from simclr.distributed.pairwise import mean_over_rows
from simclr.distributed.session import Session


@dataclass(kw_only=True)
class Params:
    """`losses.decoupled` of params.yaml."""

    temperature: float = params.between(0.001, 1000)


def loss(z: Tensor, views: int, parameters: Params, session: Session) -> Tensor:
    """See `losses`."""
    return mean_over_rows(z, views, parameters.temperature, _rule, session)


def _rule(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of row i is the mean over its positives of n_i - p_ik."""
    slope = torch.full_like(positive, 1 / positive.shape[1])
    return (negative[:, None] - positive).mean(dim=1), negative, slope
