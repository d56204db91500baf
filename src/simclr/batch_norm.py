"""BatchNorm over the global batch, so that the number of processes does not change what is learnt."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from simclr.distributed import Session


def synchronised(model: nn.Module, session: Session) -> nn.Module:
    """`model` with every BatchNorm computed over all ranks, which must hold equal shares of the batch."""
    if session.world == 1:
        return model
    if session.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = _OverRanks
    return model


class _OverRanks(_BatchNorm):
    """What torch's SyncBatchNorm, which refuses CPU tensors, does: for the gloo processes that stand in for GPUs."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        count = inputs.numel() // inputs.shape[1] * dist.get_world_size()
        mean = _Sum.apply(inputs.sum(axes)) / count
        centered = inputs - _channels(mean, inputs)
        variance = _Sum.apply(centered.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        scaled = centered * _channels((variance + self.eps).rsqrt() * self.weight, inputs)
        return scaled + _channels(self.bias, inputs)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """The sum over the ranks. Each rank's summand is in all their sums, so that its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, summand: Tensor) -> Tensor:
        total = summand.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _channels(values: Tensor, inputs: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (inputs.ndim - 2))
