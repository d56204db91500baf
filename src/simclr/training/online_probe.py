"""An online linear probe: a linear classifier that is trained beside the encoder, on the representations of each step.

No gradient flows back, so that the encoder is trained as without it. The SimCLR authors' code has the same
(google-research/simclr, `lineareval_while_pretraining`).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.core import params
from simclr.distributed.session import Session
from simclr.learning.learner import StepResult

_MOMENTUM = 0.9
"""Of SGD."""
_NEW = 0.1
"""The weight of a step in the running mean and variance, that of torch's BatchNorm; so is the epsilon."""
_EPSILON = 1e-5


@dataclass(kw_only=True)
class OnlineProbeParams:
    """`pretrain.online_probe` of params.yaml."""

    lr: float | None = params.above(0)


class OnlineProbe(nn.Module):
    """Class scores (N, C), linear in the representations h (N, D), and their training by SGD with momentum.

    Each dimension of h is standardised first, so that one learning rate serves encoders of any scale. In training that
    is by its running mean and variance, because those of the batch would be one more message between the ranks. The
    `state_dict` holds the optimiser's state too.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, dimension: int, classes: int, lr: float, session: Session) -> None:
        super().__init__()
        self._lr, self._session = lr, session
        # zeros, which draw nothing from torch's generator
        self.weight = nn.Parameter(torch.zeros(classes, dimension, device=session.device))
        self.bias = nn.Parameter(torch.zeros(classes, device=session.device))
        self.register_buffer("mean", torch.zeros(dimension, device=session.device))
        self.register_buffer("variance", torch.ones(dimension, device=session.device))
        self._optimizer = torch.optim.SGD(self.parameters(), lr, momentum=_MOMENTUM)

    def forward(self, h: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """The scores for h (N, D) float32, which has this mean (D,) and variance (D,)."""
        return F.linear((h - mean) * (variance + _EPSILON).rsqrt(), self.weight, self.bias)

    def step(self, result: StepResult, factor: float) -> Tensor:
        """Learn from a training step, at `factor` times the learning rate; return the loss, a scalar, over all ranks.

        The loss is the mean cross entropy of the views of the first size, which is that of the images in a validation;
        samples without a label are left out. The ranks hold equally many views, and exchange one message.
        """
        h = result.outputs[0][: len(result.batch.images[0])].detach().float()
        labels = result.batch.labels.repeat(len(h) // len(result.batch.labels))
        total = F.cross_entropy(self(h, self.mean, self.variance), labels, ignore_index=-1, reduction="sum")
        gradients = torch.autograd.grad(total, [self.weight, self.bias])
        shifted = h - self.mean
        own = [*gradients, total, (labels >= 0).sum(), shifted.sum(dim=0), shifted.square().sum(dim=0)]
        message = self._session.sum(torch.cat([part.detach().flatten().float() for part in own]))
        weight, bias, loss, labelled, shift, square = message.split([part.numel() for part in own])
        labelled = labelled.clamp(min=1)
        self.weight.grad, self.bias.grad = weight.view_as(self.weight) / labelled, bias / labelled
        self._optimizer.param_groups[0]["lr"] = self._lr * factor
        self._optimizer.step()
        count = len(h) * self._session.world_size
        self.mean.add_(shift, alpha=_NEW / count)
        self.variance.lerp_((square - shift.square() / count) / (count - 1), _NEW)
        mean_loss: Tensor = loss / labelled
        return mean_loss.squeeze()

    def get_extra_state(self) -> dict[str, Any]:
        return self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state)
