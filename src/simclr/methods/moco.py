"""Momentum contrast (MoCo: He et al. 2020; v2: Chen et al. 2020, "Improved baselines with momentum contrastive
learning"): a slowly moving copy of the network makes the keys, and a queue keeps those of earlier batches as negatives.

Every view is a query and a key, as in the authors' symmetric demo for CIFAR-10. Batches of keys would tell queries by
their BatchNorm which key is the positive; the authors shuffle them over GPUs (section 3.3). Here the key network
normalises by running statistics that follow those of the network as its weights do (Cai et al. 2021, "Exponential
moving average normalization"), so that a key depends on its image alone, on any number of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import params
from simclr.core.errors import UserError
from simclr.core.options import Option
from simclr.data.batch import Batch, Images
from simclr.distributed.pairwise import other_views
from simclr.distributed.session import Session
from simclr.distributed.similarity import Keys
from simclr.features.encoder import Encoder
from simclr.learning import projection_head
from simclr.learning.method import Method, Outputs
from simclr.learning.moving_average import MovingAverage
from simclr.learning.projection_head import Head, HeadParams, project
from simclr.learning.projection_metrics import contrast

USES_KEYS = True


@dataclass(kw_only=True)
class Params:
    """`methods.moco` of params.yaml."""

    head: HeadParams
    momentum: float = params.between(0, 1)
    queue: int = params.between(1, 1 << 20)


class MoCo(Method):
    """The network f, g of SimCLR, its moving average, and the queue (Q, d) of keys."""

    queue: Tensor
    oldest: Tensor
    """The row of the queue that is overwritten next, int64."""
    steps: Tensor
    """Number of steps so far, int64."""

    def __init__(self, encoder: Encoder, head: Head, loss: Option, momentum: float, queue: Tensor) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.key_network = MovingAverage(encoder, head)
        self.register_buffer("queue", queue)
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._loss, self._momentum = loss, momentum

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.key_network.eval()
        return self

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, z = project(self.encoder, self.head, images, keys)
        return h, z, self.key_network(images, keys)

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        self._keys = Keys(outputs[2], self.queue.clone())  # `after_step` changes the queue, and `scalars` comes later
        self._order = batch.keys
        value: Tensor = self._loss.module.loss(outputs[1], batch, self._loss.parameters, session, self._keys)
        return value

    @torch.no_grad()
    def after_step(self, done: float, session: Session) -> None:
        # At first the keys' network moves by more, since an average of t values gives each no less than 1 / t: else it
        # would begin with statistics of nothing, by which all keys are nearly the same.
        self.steps.add_(1)
        self.key_network.follow(self.encoder, self.head, self.steps.reciprocal().clamp(min=1 - self._momentum))
        order = session.gather_rows(self._order).argsort()  # one that is random, and the same on any number of ranks
        new = session.gather_rows(self._keys.views)[order[: len(self.queue)]]
        places = (self.oldest + torch.arange(len(new), device=new.device)) % len(self.queue)
        self.queue.index_copy_(0, places, new)
        self.oldest.add_(len(new)).remainder_(len(self.queue))

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        scalars = contrast(outputs[1], batch.views) | _with_keys(outputs[1], batch.views, self._keys)
        if hasattr(self._loss.module, "scalars"):
            scalars |= self._loss.module.scalars(outputs[1], batch, self._loss.parameters, session, self._keys)
        return scalars


@torch.no_grad()
def _with_keys(z: Tensor, views: int, keys: Keys) -> dict[str, Tensor]:
    """The mean cosine similarities of queries z to their positive keys and to the queue, in place of those to each
    other that `contrast` returns."""
    assert keys.queue is not None
    z, positive, queue = (F.normalize(rows.float(), dim=1) for rows in (z, keys.views, keys.queue))
    similarities = [(z * other).sum(dim=1).mean() for other in other_views(positive, views)]
    return {
        "positive_similarity": torch.stack(similarities).mean(),
        "negative_similarity": z.mean(dim=0) @ queue.mean(dim=0),
    }


def refusals(parameters: Params, views: int) -> Iterator[UserError]:
    """See `methods`. A longer queue would hold keys of the anchor's own image, as negatives."""
    if parameters.queue > views:
        yield params.refusal("methods.moco.queue", parameters.queue, f"at most {views}, the views of an epoch")


def build(parameters: Params, encoder: Encoder, classes: int, loss: Option) -> MoCo:
    """See `methods`."""
    head = projection_head.build(parameters.head, encoder.dimension)
    return MoCo(encoder, head, loss, parameters.momentum, torch.randn(parameters.queue, parameters.head.output))
