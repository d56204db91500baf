"""The training step of a method, for pretraining and for probes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from simclr.data.batch import Batch, Images
from simclr.distributed.session import Session
from simclr.features.eval_transform import EvalTransform
from simclr.learning import gradient_cache
from simclr.learning.buffers import snapshot
from simclr.learning.gradient_cache import Forward
from simclr.learning.method import Method, Outputs


@dataclass(frozen=True)
class StepResult:
    """The results of a step, on the device."""

    batch: Batch
    """The batch that was trained on: see `Method.before_step`."""
    loss: Tensor
    """The loss of this rank, without penalties."""
    outputs: Outputs
    scalars: Callable[[], dict[str, Tensor]]
    """The method's metrics of this step."""
    norm: Tensor
    """The norm of the gradient before clipping."""


def _do_nothing() -> None:
    pass


def _no_penalties(outputs: Outputs) -> Iterable[Tensor]:
    return ()


@dataclass(frozen=True)
class Learner:
    """A `method` and its optimiser.

    Args:
        model: `method` placed on this rank's device: see `placement`.
        optimizer: each group's `lr` is the peak learning rate when the learner is made.
        transform: normalises the images.
        bf16: run the forward pass under torch's autocast to bfloat16.
        pieces: number of pieces in which a batch is computed: see `gradient_cache`.
        between: called between two pieces, and before a `gradient`; may raise Stopped, which leaves everything as
            before the step.
        clip_grad_norm: the norm to which the gradient is clipped, or None.
        penalties: a function of the outputs: terms that are added to the loss.
    """

    method: Method
    model: nn.Module
    optimizer: Optimizer
    transform: EvalTransform
    session: Session
    bf16: bool = False
    pieces: int = 1
    between: Callable[[], None] = _do_nothing
    clip_grad_norm: float | None = None
    penalties: Callable[[Outputs], Iterable[Tensor]] = _no_penalties

    def __post_init__(self) -> None:
        for group in self.optimizer.param_groups:
            group["peak_lr"] = group["lr"]

    def step(self, batch: Batch, factor: float, done: float) -> StepResult:
        """Train on `batch`, whose images are in [0, 1], at `factor` times the peak learning rates. The images that are
        trained on are normalised in place.

        `done` is the share of all steps that are done with it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        batch = self.method.before_step(batch, self.gradient)
        batch = replace(batch, images=tuple(self.transform.normalise_(views) for views in batch.images))
        self.optimizer.zero_grad()
        outputs, loss = self._backward(self.model, self.forward, batch)
        norm = self._clip_gradient()
        self.optimizer.step()
        self.method.after_step(done, self.session)
        scalars = partial(self.method.scalars, outputs, batch, self.session)
        return StepResult(batch, loss.detach(), outputs, scalars, norm)

    def gradient(self, batch: Batch) -> Images:
        """The gradient of the loss, and of the penalties, by the images of `batch`, which are in [0, 1]; it is that of
        the training step, but leaves the weights, their gradients and the buffers as they are."""
        self.between()
        restore = snapshot(self.method)
        leaves = tuple(views.detach().requires_grad_() for views in batch.images)
        self._backward(self.method, self._normalised_forward, replace(batch, images=leaves), leaves)
        restore()
        return tuple(leaf.grad for leaf in leaves if leaf.grad is not None)

    def _backward(
        self, model: nn.Module, forward: Forward, batch: Batch, inputs: Images | None = None
    ) -> tuple[Outputs, Tensor]:
        """The outputs for `batch`, and the loss, whose gradient is added to that of the weights, or of the `inputs`."""
        loss = partial(self._loss, batch)
        if self.pieces > 1:
            return gradient_cache.backward(model, forward, batch, self.pieces, loss, self.between, inputs)
        outputs = forward(batch.images, batch.keys)
        value, total = loss(outputs)
        total.backward(inputs=inputs)
        return outputs, value

    def _loss(self, batch: Batch, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """The loss, and the loss with the penalties."""
        loss = self.method.loss(outputs, batch, self.session)
        return loss, sum(self.penalties(outputs), loss)

    def forward(self, images: Images, keys: Tensor) -> Outputs:
        """The method's outputs for normalised `images`."""
        return self._forward(self.model, images, keys)

    def _forward(self, model: nn.Module, images: Images, keys: Tensor) -> Outputs:
        with torch.autocast(self.session.device.type, torch.bfloat16, enabled=self.bf16):
            outputs: Outputs = model(images, keys)
        return outputs

    def _normalised_forward(self, images: Images, keys: Tensor) -> Outputs:
        """The outputs for images in [0, 1], apart from DDP, which would wait for gradients of the weights."""
        return self._forward(self.method, tuple(self.transform.normalise(views) for views in images), keys)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient to `clip_grad_norm`, and return its norm before."""
        weights = list(self.model.parameters())
        norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.clip_grad_norm is not None:
            clip_grads_with_norm_(weights, self.clip_grad_norm, norm)
        return norm
