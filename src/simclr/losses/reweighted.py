"""NT-Xent with negatives weighted by their hardness (Robinson et al. 2021, equation 4), and corrected for false ones
(Chuang et al. 2020, equation 8).

A negative weighs exp(beta s), relative to the mean over the anchor's N negatives: beta = 0 is the debiased loss of
Chuang et al. A share tau+ of the negatives is taken to be of the anchor's own class: with tau+ = 0 too it is NT-Xent.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from simclr.core import params
from simclr.data.batch import Batch
from simclr.distributed.pairwise import mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys, SimilarityParams, compared
from simclr.distributed.softmax import SoftmaxRule, SoftmaxTerms, differentiated, nt_xent_losses


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.reweighted` of params.yaml."""

    similarity: str = params.choice("cosine")  # the correction needs a lower bound of s
    beta: float = params.between(0, 100)
    tau_plus: float = params.between(0, 0.99)

    @property
    def scales(self) -> tuple[float, ...]:
        """c of the log-sum-exps that `_negative` takes."""
        return (1.0,) if self.beta == 0 else (self.beta, 1 + self.beta)


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None) -> Tensor:
    """See `losses`."""
    rows = compared(z, parameters, session, keys)
    losses = differentiated(partial(_losses, parameters, rows.negatives(batch.views, session)))
    rule = SoftmaxRule(losses, rows.similarity.limit, parameters.scales)
    return mean_over_rows(rows, batch.views, rule, session)


def scalars(
    z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None
) -> dict[str, Tensor]:
    """The share of anchors whose negatives have no gradient, because the correction left less than is possible."""
    rows = compared(z.detach(), parameters, session, keys)
    clamped = partial(_clamped, parameters, rows.negatives(batch.views, session))
    rule = SoftmaxRule(clamped, rows.similarity.limit, parameters.scales)
    return {"clamped_rows": session.mean(mean_over_rows(rows, batch.views, rule, session))}


def _losses(parameters: Params, count: int, positive: Tensor, statistics: Tensor) -> Tensor:
    negative, _ = _negative(parameters, count, positive, statistics)
    return nt_xent_losses(positive, negative)


def _clamped(parameters: Params, count: int, positive: Tensor, statistics: Tensor) -> SoftmaxTerms:
    """1 for a row that is clamped, else 0, as losses without derivatives."""
    _, is_clamped = _negative(parameters, count, positive, statistics)
    return SoftmaxTerms(is_clamped.to(positive.dtype), positive, statistics, statistics)


def _negative(parameters: Params, count: int, positive: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the weighted and corrected sum of exp(s) over the `count` negatives, (K,), and whether it is
    clamped."""
    negative = statistics[:, -1]
    if parameters.beta > 0:  # N times the mean of exp(beta s) exp(s), over the mean of exp(beta s)
        negative = negative - statistics[:, 0] + math.log(count)
    if parameters.tau_plus == 0:
        return negative, torch.zeros_like(negative, dtype=torch.bool)
    # (exp(negative) - tau+ N mean exp(p)) / (1 - tau+), at least N exp(-1 / tau), in logarithms
    same_class = math.log(parameters.tau_plus * count / positive.shape[1]) + positive.logsumexp(dim=1)
    lowest = math.log(count) - 1 / parameters.temperature
    gap = same_class - negative
    is_positive = gap < 0
    corrected = negative + torch.log(-torch.expm1(gap.where(is_positive, -1.0))) - math.log1p(-parameters.tau_plus)
    is_clamped = ~is_positive | (corrected < lowest)
    return corrected.masked_fill(is_clamped, lowest), is_clamped
