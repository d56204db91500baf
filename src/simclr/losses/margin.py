"""The margin loss of Siamese networks (Hadsell, Chopra and LeCun 2006, equation 4), over all pairs of the global batch.

Half the squared distance of positives, and half the square of what negatives lack to the margin. Each anchor takes the
mean over its positives and the mean over its negatives, of which it has many more.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from simclr.core import params
from simclr.data.batch import Batch
from simclr.distributed.pairwise import Block, RowLosses, mean_over_rows
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys, SimilarityParams, compared

_SHORTEST = 1e-3
"""The slope of a distance is that at this one where it is shorter: at 0 it has none."""


@dataclass(kw_only=True)
class Params(SimilarityParams):
    """`losses.margin` of params.yaml; squared distances are divided by the temperature."""

    margin: float = params.above(0)


def loss(z: Tensor, batch: Batch, parameters: Params, session: Session, keys: Keys | None = None) -> Tensor:
    """See `losses`."""
    rows = compared(z, parameters, session, keys)
    # D^2 = offset - scale s: |u - v|^2 = 2 - 2 u . v on the sphere
    offset, scale = (0.0, 1.0) if rows.similarity.squared_distance else (2 / parameters.temperature, 2.0)
    rule = _Rule(rows.negatives(batch.views, session), parameters.margin, offset, scale)
    return mean_over_rows(rows, batch.views, rule, session)


@dataclass(frozen=True)
class _Rule:
    """The statistic of a row: the mean over its negatives of (m - D)^2 / 2 where D is less than the margin m."""

    negatives: int
    """Of each anchor."""
    margin: float
    offset: float
    scale: float

    def statistics(self, block: Block) -> Tensor:
        lacking = (self.margin - self._distance(block)).clamp_(min=0)
        return (lacking.square().sum(dim=1) / (2 * self.negatives))[:, None]

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        attraction = torch.full_like(positive, self.scale / 2 / positive.shape[1])
        loss = (self.offset - self.scale * positive).mean(dim=1) / 2 + statistics[:, 0]
        weight = torch.full_like(statistics, self.scale / 2 / self.negatives)
        return RowLosses(loss, attraction, weight)

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        distance = self._distance(block)
        lacking = (self.margin - distance).clamp_(min=0)
        return lacking.div_(distance.clamp_(min=_SHORTEST)).mul_(anchors + keys[:, 0])

    def _distance(self, block: Block) -> Tensor:
        """D (h, K); infinite where s is -inf."""
        return (self.offset - self.scale * block.similarity).clamp_(min=0).sqrt_()
