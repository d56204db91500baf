"""Adversarial contrastive learning (RoCL: Kim, Tack and Hwang 2020, "Adversarial self-supervised contrastive learning",
section 3): SimCLR with one more view, which is the first with its pixels changed within bounds so that the loss rises.

The attack needs no labels: it moves the view away from the others of its sample, and towards those of other samples.
Three departures: the attack climbs the whole loss of the step, by the gradient that trains; all views are positives of
each other, without the paper's second term of the attacked view and the other one alone; and it begins at the view, not
at a random place near.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simclr.core import params
from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.contrastive import Contrastive
from simclr.learning.projection_head import Head, HeadParams
from simclr.views import pgd


@dataclass(kw_only=True)
class Params:
    """`methods.adversarial` of params.yaml."""

    head: HeadParams
    epsilon: int = params.between(1, 255)
    steps: int = params.at_least(1)
    step_size: float = params.between(0.001, 1000)


class Adversarial(Contrastive):
    """The network f, g of SimCLR, and the attack on its views."""

    def __init__(self, encoder: Encoder, head: Head, loss: Option, attack: Params) -> None:
        super().__init__(encoder, head, loss)
        self._bound, self._steps = attack.epsilon / 255, attack.steps
        self._step = self._bound * attack.step_size

    def before_step(self, batch: Batch, gradient: Callable[[Batch], Images]) -> Batch:
        view = batch.images[0][: len(batch.labels)]

        def of_attacked(changed: Tensor) -> Tensor:
            return gradient(_with_view(batch, changed))[0][-len(view) :]

        return _with_view(batch, pgd.attacked(view, view, of_attacked, self._bound, self._step, self._steps))


def _with_view(batch: Batch, view: Tensor) -> Batch:
    """`batch` with one more view of the first size, after those that there are, which has the keys of the first."""
    first, *small = batch.images
    keys, others = batch.keys.split([len(first), len(batch.keys) - len(first)])
    return replace(
        batch,
        images=(torch.cat([first, view]), *small),
        keys=torch.cat([keys, keys[: len(view)], others]),
        views=batch.views + 1,
    )


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> Adversarial:
    """See `methods`."""
    return Adversarial(encoder, projection_head.build(parameters.head, encoder.dimension), loss, parameters)
