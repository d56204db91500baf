"""Contrastive learning of the views of a batch: SimCLR (Chen et al. 2020), and methods that change its views."""

from torch import Tensor

from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder
from simclr.learning.method import Method, Outputs
from simclr.learning.projection_head import Head, project
from simclr.learning.projection_metrics import contrast


class Contrastive(Method):
    """Encoder f and projection head g: views to h (N, D) and z (N, d), and a contrastive loss of z."""

    def __init__(self, encoder: Encoder, head: Head, loss: Option) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self._loss = loss

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor]:
        return project(self.encoder, self.head, images, keys)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        value: Tensor = self._loss.module.loss(outputs[1], batch, self._loss.parameters, session)
        return value

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        scalars = contrast(outputs[1], batch.views)
        if hasattr(self._loss.module, "scalars"):
            scalars |= self._loss.module.scalars(outputs[1], batch, self._loss.parameters, session)
        return scalars
