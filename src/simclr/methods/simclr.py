"""SimCLR (Chen et al. 2020): an encoder and a projection head, trained by a contrastive loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder, encode
from simclr.learning import projection_head
from simclr.learning.method import Method, Outputs
from simclr.learning.optimizer import by_decay
from simclr.learning.projection_head import HeadParams
from simclr.learning.projection_metrics import contrast


@dataclass(kw_only=True)
class Params:
    """`methods.simclr` of params.yaml."""

    head: HeadParams


class SimCLR(Method):
    """Encoder f and projection head g: views to h (N, D) and z (N, d)."""

    def __init__(self, encoder: Encoder, head: nn.Module, loss: Option) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self._loss = loss

    def before_step(self, batch: Batch, session: Session) -> Batch:
        return batch

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor]:
        h = encode(self.encoder, images)
        with torch.autocast(h.device.type, enabled=False):  # the 8 bits of a bf16 z would be noise in the gradient
            return h, self.head(h.to(torch.promote_types(h.dtype, torch.float32)), keys)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        value: Tensor = self._loss.module.loss(outputs[1], batch, self._loss.parameters, session)
        return value

    def after_step(self, done: float, session: Session) -> None:
        pass

    def parameter_groups(self) -> list[dict[str, Any]]:
        return by_decay(self)

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        scalars = contrast(outputs[1], batch.views)
        if hasattr(self._loss.module, "scalars"):
            scalars |= self._loss.module.scalars(outputs[1], batch, self._loss.parameters, session)
        return scalars


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> SimCLR:
    """See `methods`."""
    return SimCLR(encoder, projection_head.build(parameters.head, encoder.dimension), loss)
