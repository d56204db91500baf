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

    The ratio is 1 in a group whose `adapt` is false, and for a tensor with |w| or |g| = 0. With the decayed gradient
    in the denominator this is the form of the authors of SimCLR (lars_optimizer.py), not |g| + weight_decay |w|.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient, in a few launches for each group."""
        assert closure is None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            directions = torch._foreach_add([weight.grad for weight in weights], weights, alpha=group["weight_decay"])
            if group["adapt"]:
                torch._foreach_mul_(directions, self._ratios(weights, directions))
            torch._foreach_mul_(directions, group["lr"])
            velocities = [self._velocity(weight) for weight in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, directions)
            torch._foreach_sub_(weights, velocities)

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weight)
        velocity: Tensor = state["velocity"]
        return velocity

    @staticmethod
    def _ratios(weights: Sequence[Tensor], directions: Sequence[Tensor]) -> list[Tensor]:
        size, slope = (torch.stack(torch._foreach_norm(list(tensors))) for tensors in (weights, directions))
        ratios = torch.where((size > 0) & (slope > 0), TRUST_COEFFICIENT * size / slope, 1.0)
        return list(ratios.unbind())
