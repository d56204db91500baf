"""Decoupled contrastive learning (Yeh et al. 2022): NT-Xent without the positive in its denominator.

NT-Xent multiplies every gradient by 1 - exp(p_i - d_i), which is small for an easy positive and few negatives, as in
small batches; without the positive in the denominator the factor is 1.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from simclr.core import params
from simclr.data.batch import Batch
from simclr.distributed.pairwise import mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys, SimilarityParams, compared
from simclr.distributed.softmax import SoftmaxRule, differentiated


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.decoupled` of params.yaml."""

    weight_sigma: float | None = params.between(0.001, 1000)


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None) -> Tensor:
    """See `losses`."""
    rows = compared(z, parameters, session, keys)
    scale = None if parameters.weight_sigma is None else parameters.temperature / parameters.weight_sigma
    rule = SoftmaxRule(differentiated(partial(_loss, scale)), rows.similarity.limit)
    return mean_over_rows(rows, batch.views, rule, session)


def _loss(scale: float | None, positive: Tensor, negative: Tensor) -> Tensor:
    """The mean over positives of n_i - w_ik p_ik.

    With a `scale`, tau / sigma, w_ik = 2 - exp(scale p_ik) / mean over all rows and positives of exp(scale p), the
    negative von Mises-Fisher weights of equation 6, which have mean 1 and no gradient.
    """
    if scale is None:
        return (negative - positive).mean(dim=1)
    share = torch.softmax(scale * positive.detach().flatten(), dim=0).view_as(positive)
    return (negative - (2 - positive.numel() * share) * positive).mean(dim=1)
