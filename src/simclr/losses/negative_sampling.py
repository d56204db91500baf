"""Negative sampling (Mikolov et al. 2013, equation 4; noise contrastive estimation, Gutmann and Hyvarinen 2010, without
the noise's density): a logistic regression tells each positive from some sampled negatives.

The negatives of an anchor are drawn with replacement among the rows of other samples in the global batch, by hashes of
the anchor's key, so that every rank knows the draws of all.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params, randomness
from simclr.data.batch import Batch
from simclr.distributed.pairwise import Block, KeyOrder, RowLosses, mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import SimilarityParams, compared


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.negative_sampling` of params.yaml."""

    negatives: int = params.between(1, 4096)


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session) -> Tensor:
    """See `losses`."""
    keys, samples = session.gather_rows(batch.keys), session.gather_rows(batch.samples)
    sampled = _sampled(keys, samples, batch.views, len(batch.samples), parameters.negatives)
    return mean_over_rows(compared(z, parameters, session), batch.views, _Rule(sampled), session)


def _sampled(keys: Tensor, samples: Tensor, views: int, share: int, count: int) -> Tensor:
    """The negatives of each row, as positions among the `keys` (K,): (K, `count`) int64.

    Draws number the other samples in the order of their indices `samples` (B,), of which each rank holds a `share`, so
    that it does not matter which rank holds which.
    """
    order = KeyOrder(views, share)
    place_of_number = samples.argsort()
    own = place_of_number.argsort()[order.place(torch.arange(len(keys), device=keys.device))][:, None]
    others = len(samples) - 1
    counters = -1 - torch.arange(count, device=keys.device)  # dropout takes those from 0 on
    drawn = randomness.integers(others * views, keys[:, None], counters)
    number = drawn % others
    return order.key(place_of_number[number + (number >= own)], drawn // others)


@dataclass(frozen=True)
class _Rule:
    """The statistic of a row: the sum of log(1 + exp(s)) over its sampled negatives."""

    sampled: Tensor
    """(K, k), as `_sampled` returns it."""

    def statistics(self, block: Block) -> Tensor:
        return F.softplus(block.similarity.gather(1, self.sampled[block.anchors])).sum(dim=1, keepdim=True)

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        loss = F.softplus(-positive).mean(dim=1) + statistics[:, 0]
        attraction = torch.sigmoid(-positive) / positive.shape[1]
        return RowLosses(loss, attraction, statistics[:, :0])

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        slopes = torch.sigmoid(block.similarity)
        by_anchor = torch.zeros_like(slopes)
        drawn = self.sampled[block.anchors]
        by_anchor.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=slopes.dtype))
        # the draws of each key that hit one of these anchors; the others are counted in one more row
        row = (self.sampled - block.anchors.start).T
        row = row.where((row >= 0) & (row < len(slopes)), len(slopes))
        by_key = slopes.new_zeros((len(slopes) + 1, slopes.shape[1]))
        by_key.scatter_add_(0, row, torch.ones_like(row, dtype=slopes.dtype))
        return slopes.mul_(by_anchor.add_(by_key[:-1]))
