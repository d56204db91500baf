"""Contrastive predictive coding (van den Oord et al. 2018) between views: one view of a sample predicts the others.

The paper predicts later parts of an image from earlier ones; here the parts are random crops, as SimCLR has them. A
linear map W of a projection is compared with the projections of all other samples' views, and of the other views of its
own (equations 3 and 4, with the similarity and the temperature of `pretrain.loss` in place of the plain product).
Predictions and what they predict both learn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.method import Method, Outputs
from simclr.learning.projection_head import Head, HeadParams, project
from simclr.learning.projection_metrics import contrast

USES_KEYS = True


@dataclass(kw_only=True)
class Params:
    """`methods.cpc` of params.yaml."""

    head: HeadParams


class CPC(Method):
    """The network f, g of SimCLR and the linear map W (d, d)."""

    def __init__(self, encoder: Encoder, head: Head, predictor: nn.Linear, loss: Option) -> None:
        super().__init__()
        self.encoder, self.head, self.predictor = encoder, head, predictor
        self._loss = loss

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, z = project(self.encoder, self.head, images, keys)
        with torch.autocast(z.device.type, enabled=False):
            return h, z, self.predictor(z)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        _, z, predictions = outputs
        value: Tensor = self._loss.module.loss(predictions, batch, self._loss.parameters, session, Keys(z))
        return value

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        _, z, predictions = outputs
        scalars = contrast(z, batch.views)
        if hasattr(self._loss.module, "scalars"):
            scalars |= self._loss.module.scalars(predictions, batch, self._loss.parameters, session, Keys(z.detach()))
        return scalars


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> CPC:
    """See `methods`."""
    head = projection_head.build(parameters.head, encoder.dimension)
    dimension = parameters.head.output
    return CPC(encoder, head, nn.Linear(dimension, dimension, bias=False), loss)
