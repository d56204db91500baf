"""What every method is: see `methods`."""

from typing import Any

from torch import Tensor, nn

from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.features.encoder import Encoder

Outputs = tuple[Tensor, ...]
"""What `forward` returns: tensors with a row for each image, of which the first are the representations h (N, D)."""


class Method(nn.Module):
    """The network of a method, and what happens in a step. All that it learns or keeps is in its `state_dict`."""

    encoder: Encoder
    """What is validated and kept."""

    def before_step(self, batch: Batch, session: Session) -> Batch:
        """The batch to learn from in place of `batch`, whose images are normalised: perturbed, or without the views
        that are only compared with."""
        raise NotImplementedError

    def forward(self, images: Tensor, keys: Tensor) -> Outputs:
        """Of normalised `images` (N, 3, S, S), all views of a batch or some, with their `keys` (N,) for dropout. This
        alone is hooked by DDP: whatever needs a gradient goes through it."""
        raise NotImplementedError

    def loss(self, outputs: Outputs, batch: Batch, session: Session) -> Tensor:
        """A float32 scalar, of the outputs of all images of `batch`; the mean of the ranks' gradients is that of one
        process on the global batch."""
        raise NotImplementedError

    def after_step(self, done: float, session: Session) -> None:
        """What follows the optimiser's step; the share `done` of all steps is behind."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For the optimiser: `params`; `decay`, whether weight decay and the adaptation of LARS apply; and `lr`, the
        peak learning rate, where it is another than the optimiser's."""
        raise NotImplementedError

    def scalars(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """What TensorBoard shows beside the loss, by name."""
        raise NotImplementedError
