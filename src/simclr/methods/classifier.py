"""A linear classifier on an encoder, by cross entropy: supervised training, or a probe where the encoder is frozen.

Every view of a sample has its label. Several layers may be trained at once on the same representations, each at its own
learning rate and with its own gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.augment import crop, flip
from simclr.core import params
from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.data.beton import Beton
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder, encode
from simclr.features.eval_transform import EvalTransform
from simclr.learning import placement
from simclr.learning.learner import Learner
from simclr.learning.method import Method, Outputs
from simclr.learning.optimizer import by_decay, with_decay
from simclr.learning.schedule import warmup_cosine
from simclr.tracking import progress
from simclr.views.compose import Views
from simclr.views.stream import ViewStream

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


class FitParams(Protocol):
    """What `fit` reads of a section of params.yaml."""

    batch_size: int
    shuffle_window: int | None
    momentum: float
    weight_decay: float
    crop_scale: list[float]
    flip: float


def fit(
    method: Classifier,
    parameters: FitParams,
    train: Beton,
    transform: EvalTransform,
    seed: int,
    epochs: int,
    steps: int,
    session: Session,
    bar: progress.Bar,
    *,
    drop_last: bool,
    lr: float = 0.0,
    bf16: bool = False,
) -> None:
    """Train `method` on random crops and flips of `train`, by SGD with Nesterov momentum and a cosine without warm-up.

    Args:
        seed: draws the order and the crops.
        steps: those of all `epochs`; each moves `bar`.
        drop_last: leave out an epoch's last, smaller batch.
        lr: the peak learning rate of what has none of its own.
        bf16: see `Learner`.
    """
    model = placement.place_model(method, session, compiled=False)
    groups = with_decay(method.parameter_groups(), parameters.weight_decay)
    solver = torch.optim.SGD(groups, lr, parameters.momentum, nesterov=parameters.momentum > 0)
    learner = Learner(method, model, solver, transform, session, bf16=bf16)
    augmentations = (
        Option("augment", "crop", crop.Params(scale=parameters.crop_scale, ratio=[3 / 4, 4 / 3])),
        Option("augment", "flip", flip.Params(probability=parameters.flip)),
    )
    views = (Views(augmentations, 1, transform.size, seed),)
    stream = ViewStream(train, views, session.device, parameters.shuffle_window)
    batches = (
        batch
        for epoch in range(1, epochs + 1)
        for batch in stream.epoch(epoch, parameters.batch_size, session, drop_last=drop_last)
    )
    model.train()
    for step, batch in enumerate(batches):
        learner.step(batch, warmup_cosine(step, steps, warmup_steps=0), (step + 1) / steps)
        bar.update()
