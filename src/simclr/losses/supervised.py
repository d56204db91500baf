"""Supervised contrastive learning (Khosla et al. 2020, equation 2, L_out): samples of the same class are positives too.

A sample without a label (-1) has the other views of itself as positives, as in NT-Xent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from simclr.data.batch import Batch
from simclr.distributed.pairwise import Block, RowLosses, mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import SimilarityParams, compared

NEEDS_LABELS = True


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.supervised` of params.yaml."""


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session) -> Tensor:
    """See `losses`."""
    labels = session.gather_rows(batch.labels.repeat(batch.views))
    return mean_over_rows(compared(z, parameters, session), batch.views, _Rule(labels), session)


@dataclass(frozen=True)
class _Rule:
    """The statistics of a row, over the rows of other samples: the log-sum-exp, and of those of its class the sum of s
    and their number."""

    labels: Tensor
    """(K,) of all keys."""

    def statistics(self, block: Block) -> Tensor:
        of_class = self._of_class(block)
        same = block.similarity.where(of_class, 0).sum(dim=1)
        return torch.stack([block.similarity.logsumexp(dim=1), same, of_class.sum(dim=1)], dim=1)

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        negative, same, count = statistics.unbind(1)
        share = 1 / (count + positive.shape[1])
        denominator = torch.cat([positive, negative[:, None]], dim=1).logsumexp(dim=1)
        attraction = share[:, None] - (positive - denominator[:, None]).exp()
        loss = denominator - share * (positive.sum(dim=1) + same)
        return RowLosses(loss, attraction, torch.stack([denominator, share], dim=1))

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        of_class = self._of_class(block)
        total = (block.similarity - anchors[:, :1]).clamp_(max=0).exp_()
        total += (block.similarity - keys[:, 0]).clamp_(max=0).exp_()
        return total.sub_((anchors[:, 1:] + keys[:, 1]) * of_class)

    def _of_class(self, block: Block) -> Tensor:
        """Whether a key is of the anchor's class, and of another sample: (h, K)."""
        labels = self.labels[block.anchors, None]
        return (labels == self.labels) & (labels >= 0) & (block.similarity > -torch.inf)
