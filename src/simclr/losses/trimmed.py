"""NT-Xent without the hardest or the easiest negatives of each anchor.

The hardest ones, the most similar to the anchor, are often of its own class; the easiest ones teach little. Shares are
of the negatives in the global batch, and what they leave out is rounded down; of equal similarities at a border all are
kept.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simclr.core import params
from simclr.data.batch import Batch
from simclr.distributed import softmax
from simclr.distributed.pairwise import Block, RowLosses, mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys, SimilarityParams, compared

_ROUNDING = 1e-6
"""0.9 of 510 negatives are 459, whatever the product of floats."""


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.trimmed` of params.yaml."""

    kept: list[float] = params.interval(0, 1)


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None) -> Tensor:
    """See `losses`."""
    rows = compared(z, parameters, session, keys)
    rule = _Rule(rows.negatives(batch.views, session), *parameters.kept)
    return mean_over_rows(rows, batch.views, rule, session)


@dataclass(frozen=True)
class _Rule:
    """The statistics of a row: the log-sum-exp of the negatives that are kept, and their lowest and highest s.

    The borders are midway between the last similarity that is left out and the first that is kept: the backward pass
    computes s_ij again, also with j as the anchor, where rounding would move a value across a border equal to it.
    """

    negatives: int
    """Of each anchor."""
    start: float
    """The share of the negatives that is easier than those that are kept."""
    end: float
    """This share and those that are kept."""

    def statistics(self, block: Block) -> Tensor:
        count = self.negatives
        ordered = block.similarity.sort(dim=1).values[:, -count:]  # without -inf: the anchor and its positives
        top = max(1, math.ceil(self.end * count - _ROUNDING))  # one at least is kept
        bottom = min(math.floor(self.start * count + _ROUNDING), top - 1)
        everything = torch.full_like(ordered[:, 0], torch.inf)
        low = (ordered[:, bottom - 1] + ordered[:, bottom]) / 2 if bottom > 0 else -everything
        high = (ordered[:, top - 1] + ordered[:, top]) / 2 if top < count else everything
        negative = _kept(block.similarity, low[:, None], high[:, None]).logsumexp(dim=1)
        return torch.stack([negative, low, high], dim=1)

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        rows = softmax.nt_xent(positive, statistics[:, :1])
        terms = torch.cat([rows.shift, statistics[:, 1:]], dim=1)
        return RowLosses(rows.loss, rows.attraction, terms, neutral=torch.inf)

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        total = torch.zeros_like(block.similarity)
        for shift, low, high in (anchors[:, :, None].unbind(1), keys.unbind(1)):
            total += _kept(block.similarity, low, high).sub_(shift).clamp_(max=0).exp_()
        return total


def _kept(similarity: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A copy of `similarity`, -inf below `low` and above `high`."""
    return similarity.masked_fill((similarity < low) | (similarity > high), -torch.inf)
