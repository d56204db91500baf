"""A linear classifier on an encoder, by cross entropy: supervised training, or a probe where the encoder is frozen.

Every view of a sample has its label. Several layers may be trained at once on the same representations, each at its own
learning rate and with its own gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.core import params
from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder, encode
from simclr.learning.method import Method, Outputs
from simclr.learning.optimizer import by_decay

NEEDS_LABELS = True
_ENCODED = 256
"""Images of one forward pass through a frozen encoder, whatever the size of the batch."""


@dataclass(kw_only=True)
class Params:
    """`methods.classifier` of params.yaml."""

    label_smoothing: float = params.between(0, 0.99)


class Classifier(Method):
    """An encoder and linear layers: views to h (N, D) and class scores (N, C) of each layer.

    Args:
        encoder: frozen if its parameters need no gradient.
        rates: the peak learning rate of each layer; None means the optimiser's.
    """

    def __init__(
        self, encoder: Encoder, classes: int, label_smoothing: float = 0.0, rates: Sequence[float | None] = (None,)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = nn.ModuleList(nn.Linear(encoder.dimension, classes) for _ in rates)
        for weight in self.layers.parameters():
            nn.init.zeros_(weight)
        self._label_smoothing, self._rates = label_smoothing, rates
        self._is_frozen = not any(weight.requires_grad for weight in encoder.parameters())

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        self.encoder.train(mode and not self._is_frozen)
        return self

    def before_step(self, batch: Batch, session: Session) -> Batch:
        return batch

    def forward(self, images: Images, keys: Tensor) -> Outputs:
        if self._is_frozen:
            with torch.no_grad():
                h = encode(self.encoder, tuple(part for views in images for part in views.split(_ENCODED)))
        else:
            h = encode(self.encoder, images)
        with torch.autocast(h.device.type, enabled=False):
            rows = h.to(torch.promote_types(h.dtype, torch.float32))
            return h, *(layer(rows) for layer in self.layers)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        # A sum over this rank's share, which may be smaller than the others', scaled so that the mean of the ranks'
        # gradients is the gradient of the global mean.
        labels = batch.labels.repeat(batch.views)
        sums = [
            F.cross_entropy(scores, labels, reduction="sum", label_smoothing=self._label_smoothing)
            for scores in outputs[1:]
        ]
        return torch.stack(sums).sum() * session.world_size / (batch.total * batch.views)

    def after_step(self, done: float, session: Session) -> None:
        pass

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = [] if self._is_frozen else by_decay(self.encoder)
        for layer, rate in zip(self.layers, self._rates, strict=True):
            own = {} if rate is None else {"lr": rate}
            groups += [{**group, **own} for group in by_decay(layer)]
        return groups

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        guesses = outputs[1].argmax(dim=1)
        return {"accuracy": (guesses == batch.labels.repeat(batch.views)).float().mean()}


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> Classifier:
    """See `methods`; `loss` is unused, because a classifier has its own."""
    return Classifier(encoder, classes, parameters.label_smoothing)
