"""Bootstrap your own latent (BYOL: Grill et al. 2020): views predict the projections of others, without negatives.

The targets are of a second network, which follows the first slowly; it normalises over the batch, as the first does.
Every view predicts and is a target, as in the paper's symmetric loss. Two departures: the projection head is that of
SimCLR, with a BatchNorm after its last layer, where the paper has none (Chen and He 2021, "Exploring simple Siamese
representation learning", have it too); and all views are made alike, where the paper solarizes some of every second.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.core import params
from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.pairwise import other_views
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.method import Method, Outputs
from simclr.learning.moving_average import MovingAverage
from simclr.learning.projection_head import Head, HeadParams, project
from simclr.learning.projection_metrics import contrast


@dataclass(kw_only=True)
class Params:
    """`methods.byol` of params.yaml."""

    head: HeadParams
    momentum: float = params.between(0, 1)


class BYOL(Method):
    """The network f, g of SimCLR, the predictor q (d to d), and the moving average of f, g that makes the targets."""

    def __init__(self, encoder: Encoder, head: Head, predictor: nn.Module, momentum: float) -> None:
        super().__init__()
        self.encoder, self.head, self.predictor = encoder, head, predictor
        self.target_network = MovingAverage(encoder, head)
        self._momentum = momentum

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h, z = project(self.encoder, self.head, images, keys)
        with torch.autocast(z.device.type, enabled=False):  # as the head
            predictions = self.predictor(z)
        return h, z, predictions, self.target_network(images, keys)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        """The mean of equation 2, 2 - 2 cos(q, z'), over all predictions and the targets of the sample's other views:
        half the paper's, which sums those of its two views."""
        predictions, targets = (F.normalize(rows, dim=1) for rows in outputs[2:])
        sums = [(2 - 2 * (predictions * target).sum(dim=1)).sum() for target in other_views(targets, batch.views)]
        pairs = batch.total * batch.views * len(sums)  # of all ranks, over whose gradients a mean is taken
        return torch.stack(sums).sum() * session.world_size / pairs

    def after_step(self, done: float, session: Session) -> None:
        share = (1 - self._momentum) * (1 + math.cos(math.pi * done)) / 2  # 1 - tau of section 3.3
        self.target_network.follow(self.encoder, self.head, share)

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        return contrast(outputs[1], batch.views)


def _predictor(parameters: HeadParams) -> nn.Sequential:
    """Like the head, but with two layers and no BatchNorm after the last one (section 3.3)."""
    norm = [nn.BatchNorm1d(parameters.hidden)] if parameters.batch_norm else []
    return nn.Sequential(
        nn.Linear(parameters.output, parameters.hidden, bias=not norm),
        *norm,
        nn.ReLU(inplace=True),
        nn.Linear(parameters.hidden, parameters.output),
    )


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> BYOL:
    """See `methods`; `loss` is unused, because there are no negatives."""
    head = projection_head.build(parameters.head, encoder.dimension)
    return BYOL(encoder, head, _predictor(parameters.head), parameters.momentum)
