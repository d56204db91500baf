"""The base class of methods: see `methods`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder
from simclr.learning.optimizer import by_decay
from simclr.learning.projection_head import Head

Outputs = tuple[Tensor, ...]
"""The output of `forward`: tensors with a row for each image; the first is the representations h (N, D)."""


class Method(nn.Module):
    """The network of a method and its training step. The `state_dict` holds all of its state."""

    encoder: Encoder
    """The encoder that is validated and saved."""
    head: Head
    """The projection head, which is saved too; methods without one leave it out."""

    def before_step(self, batch: Batch, gradient: Callable[[Batch], Images]) -> Batch:
        """The batch to train on in place of `batch`, such as one with attacked views; images are in [0, 1]. By default
        `batch` itself. `gradient` gives that of the loss by the images of a batch: see `Learner.gradient`."""
        return batch

    def forward(self, images: Images, keys: Tensor) -> Outputs:
        """The outputs for normalised `images` of a batch or a piece of it, with the `keys` (N,) of all of them for
        dropout. DDP hooks this method alone, so all computation that needs a gradient goes through it."""
        raise NotImplementedError

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        """The loss, a float32 scalar, of the outputs for all images of `batch`; the mean of the ranks' gradients equals
        the gradient of one process on the global batch."""
        raise NotImplementedError

    def after_step(self, done: float, session: Session) -> None:
        """Called after the optimiser's step; `done` is the share of all steps that are done. By default nothing."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: `params`; `decay`, whether weight decay and the adaptation of LARS apply; and, if it
        is not the optimiser's, the peak learning rate `lr`. By default those of `by_decay`."""
        return by_decay(self)

    def scalars(self, outputs: Outputs, batch: Batch, session: Session) -> dict[str, Tensor]:
        """Metrics for TensorBoard beside the loss, by name. All ranks call it."""
        raise NotImplementedError
