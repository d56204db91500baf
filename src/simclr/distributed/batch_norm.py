"""BatchNorm over the global batch, so that training does not depend on the number of processes.

Each rank computes the mean and the variance of its own share. All shares are equal, so the global mean is the mean of
the means, and the global variance the mean of the variances plus the variance of the means: one all-reduce of 2 C
values per rank in the forward pass, and one in the backward pass.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from simclr.distributed.session import Session


def convert_sync_batchnorm(model: nn.Module, session: Session) -> nn.Module:
    """Compute every BatchNorm of `model` over all ranks, which must hold equal shares of the batch."""
    if session.world_size > 1:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _SyncBatchNorm
    return model


class _SyncBatchNorm(_BatchNorm):
    """torch's SyncBatchNorm, but on CPU tensors too, and without its wait for the GPU in every layer."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        if not self.training:
            return F.batch_norm(inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        self.num_batches_tracked.add_(1)
        normalise = _CudaKernels.apply if inputs.is_cuda and not torch.compiler.is_compiling() else _by_torch_operations
        outputs: Tensor = normalise(
            inputs, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        return outputs


def _by_torch_operations(
    inputs: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, eps: float
) -> Tensor:
    """BatchNorm in torch operations, for any device; torch.compile fuses them into a few passes."""
    exact = inputs if inputs.dtype == torch.float64 else inputs.float()
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    if inputs.is_cuda:
        variance, mean = torch.var_mean(exact, axes, correction=0)
    else:  # on a CPU torch.var_mean takes five times as long
        mean = exact.mean(axes)
        variance = (exact - _channels(mean, exact)).square().mean(axes)
    means, variances = _AllReduceSum.apply(_own_row(torch.stack([mean, variance]))).unbind(1)
    mean, variance = means.mean(0), variances.mean(0) + means.var(0, correction=0)
    count = inputs.numel() // inputs.shape[1] * len(means)  # values per channel on all ranks
    running_mean.lerp_(mean.detach(), momentum)
    # torch keeps the unbiased variance, and normalises by the biased one
    running_var.lerp_(variance.detach() * (count / (count - 1)), momentum)
    scaled = (exact - _channels(mean, exact)) * _channels((variance + eps).rsqrt() * weight, exact)
    return (scaled + _channels(bias, exact)).to(inputs.dtype)


class _CudaKernels(torch.autograd.Function):
    """BatchNorm in the kernels of torch's SyncBatchNorm, which save only the inputs for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        inputs = _dense(inputs)
        gathered = _own_row(torch.stack(torch.batch_norm_stats(inputs, eps)))
        dist.all_reduce(gathered)
        means, inverses = gathered.unbind(1)
        world, count = len(gathered), inputs.numel() // inputs.shape[1]
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            inputs, means, inverses, running_mean, running_var, momentum, eps, means.new_full((world,), count)
        )
        counts = torch.full((world,), count, dtype=torch.int32, device=inputs.device)
        ctx.save_for_backward(inputs, weight, mean, inverse, counts)
        return torch.batch_norm_elemt(inputs, weight, bias, mean, inverse, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, inverse, counts = ctx.saved_tensors
        gradient = _dense(gradients[0])
        # Per channel, over this rank's rows: the sum of the gradient g, and the sum of g (x - mean). The gradients of
        # weight and bias are sums over this rank alone, because DDP averages them as all others.
        summed, correlated, weight_gradient, bias_gradient = torch.batch_norm_backward_reduce(
            gradient, inputs, mean, inverse, weight, True, True, True
        )
        # The mean and variance are functions of all ranks' rows, so the gradient of a row needs both sums over the
        # global batch; `counts` divides them by its size.
        totals = torch.stack([summed, correlated])
        dist.all_reduce(totals)
        input_gradient = torch.batch_norm_backward_elemt(
            gradient, inputs, mean, inverse, weight, totals[0], totals[1], counts
        )
        return input_gradient, weight_gradient, bias_gradient, None, None, None, None


def _own_row(own: Tensor) -> Tensor:
    """(world_size, ...): `own` in this rank's row, zeros elsewhere. The sum over the ranks holds the rows of all.

    It stands in for an all-gather, because neither it nor its gradient depends on the backend.
    """
    rows = own.new_zeros((dist.get_world_size(), *own.shape))
    rows[dist.get_rank()] = own
    return rows


class _AllReduceSum(torch.autograd.Function):
    """The sum over the ranks. A rank's summand enters the sums of all ranks, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, summand: Tensor) -> Tensor:
        return _all_reduce_sum(summand)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_reduce_sum(gradients[0])


def _all_reduce_sum(summand: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # torch 2.11 traces dist.all_reduce with wrong gradients
        traced: Tensor = all_reduce(summand, "sum", cast(dist.ProcessGroup, dist.group.WORLD))
        return traced
    total = summand.clone()
    dist.all_reduce(total)
    return total


def _dense(values: Tensor) -> Tensor:
    """`values` dense in memory, channels_last or contiguous, as the kernels require."""
    return values if values.is_contiguous(memory_format=torch.channels_last) else values.contiguous()


def _channels(values: Tensor, inputs: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (inputs.ndim - 2))
