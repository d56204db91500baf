"""LARS, the layer-wise adaptive rate scaling of You, Gitman and Ginsburg 2017 (algorithm 1), as SimCLR uses it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

TRUST_COEFFICIENT = 0.001
"""eta, of You et al. 2017, section 5.1, and of SimCLR's code."""


class LARS(Optimizer):
    """v <- momentum v + lr * ratio (g + weight_decay w); w <- w - v, with ratio = eta |w| / |g + weight_decay w|.

    The ratio is 1 in a group whose `adapt` is false, and for a tensor where one of the two norms is 0. With the
    decayed gradient below, this is the form of the authors of SimCLR (lars_optimizer.py), not |g| + weight_decay |w|.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters with a gradient: on a GPU a whole group at a time, in few launches; on a CPU one
        parameter after another, which stays in the cache for the whole update."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            on_cpu = all(weight.device.type == "cpu" for weight in weights)
            for part in [[weight] for weight in weights] if on_cpu else [weights]:
                self._update(part, group)

    def _update(self, weights: list[Any], group: dict[str, Any]) -> None:
        directions = torch._foreach_add([weight.grad for weight in weights], weights, alpha=group["weight_decay"])
        velocities = [self._velocity(weight) for weight in weights]
        torch._foreach_mul_(velocities, group["momentum"])
        if group["adapt"]:
            rates = group["lr"] * self._ratios(weights, directions)
            torch._foreach_addcmul_(velocities, directions, _expand_rates(rates, weights))
        else:
            torch._foreach_add_(velocities, directions, alpha=group["lr"])
        torch._foreach_sub_(weights, velocities)

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity

    @staticmethod
    def _ratios(weights: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
        size, slope = (torch.stack(torch._foreach_norm(list(tensors))) for tensors in (weights, directions))
        return torch.where((size > 0) & (slope > 0), TRUST_COEFFICIENT * size / slope, 1.0)


def _expand_rates(rates: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Expand `rates`, one for each of the `weights`, to tensors of the weights' shapes and strides, so that a foreach
    operation on them stays one kernel launch instead of one for each tensor."""
    if len(weights) == 1:  # a scalar broadcasts, and one tensor is one launch anyway
        return [rates[0]]
    # One allocation for all. Every part holds a single value, so any layout of it is right: it gets the strides of its
    # weight, which may be channels last, because foreach operations need equal strides too.
    sizes = [weight.numel() for weight in weights]
    flat = torch.cat([rate.expand(size) for rate, size in zip(rates, sizes, strict=True)]).split(sizes)
    return [
        part.as_strided(weight.shape, weight.stride(), part.storage_offset())
        for part, weight in zip(flat, weights, strict=True)
    ]
