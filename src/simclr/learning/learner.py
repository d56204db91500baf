"""One step of a method on a batch, the same for whatever learns."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.features.eval_transform import EvalTransform
from simclr.learning.method import Method, Outputs


@dataclass(frozen=True)
class StepResult:
    """What a step leaves to look at, on the device."""

    loss: Tensor
    """Of this rank, without penalties."""
    outputs: Outputs
    scalars: Callable[[], dict[str, Tensor]]
    """What the method says of this step."""
    norm: Tensor
    """Of the gradient, before it was cut."""


def _no_penalty(outputs: Outputs) -> Tensor | float:
    return 0.0


@dataclass(frozen=True)
class Learner:
    """A `method` and its optimiser.

    Args:
        model: `method` as it runs on this rank: see `placement`.
        optimizer: each group's `lr` is the peak learning rate when the learner is made.
        transform: how images are normalised.
        bf16: run the forward pass in bfloat16 where torch's autocast does so.
        clip_grad_norm: the largest norm of the gradient, or None.
        penalty: of the outputs, added to the loss.
    """

    method: Method
    model: nn.Module
    optimizer: Optimizer
    transform: EvalTransform
    session: Session
    bf16: bool = False
    clip_grad_norm: float | None = None
    penalty: Callable[[Outputs], Tensor | float] = _no_penalty

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group["peak_lr"] = group["lr"]

    def step(self, batch: Batch, factor: float, done: float) -> StepResult:
        """Learn from `batch`, whose images are in [0, 1], at `factor` times the peak learning rates.

        With it the share `done` of all steps is behind.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        batch = replace(batch, images=self.transform.normalise(batch.images))
        batch = self.method.before_step(batch, self.session)
        outputs = self.forward(batch.images, batch.keys)
        loss = self.method.loss(outputs, batch, self.session)
        self.optimizer.zero_grad()
        (loss + self.penalty(outputs)).backward()
        norm = self._clipped()
        self.optimizer.step()
        self.method.after_step(done, self.session)
        return StepResult(loss.detach(), outputs, partial(self.method.scalars, outputs, batch), norm)

    def forward(self, images: Tensor, keys: Tensor) -> Outputs:
        """The method's outputs for normalised `images`."""
        with torch.autocast(self.session.device.type, torch.bfloat16, enabled=self.bf16):
            outputs: Outputs = self.model(images, keys)
        return outputs

    def _clipped(self) -> Tensor:
        """The norm of the gradient, which is cut to the largest that is allowed."""
        weights = list(self.model.parameters())
        norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.clip_grad_norm is not None:
            clip_grads_with_norm_(weights, self.clip_grad_norm, norm)
        return norm
