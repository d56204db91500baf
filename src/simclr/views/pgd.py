"""Projected gradient descent: an attack on pixels (Madry et al. 2018, section 2.1 and equation 2)."""

from collections.abc import Callable

import torch
from torch import Tensor


def attacked(
    images: Tensor,
    start: Tensor,
    gradient: Callable[[Tensor], Tensor],
    epsilon: float,
    step: float,
    steps: int,
) -> Tensor:
    """`images`, changed by at most `epsilon` (the maximum norm) so that what `gradient` is of rises.

    Each of the `steps` adds `step` times the sign of the gradient, and goes back into the box of what is allowed.

    Args:
        images: (N, 3, S, S) in [0, 1].
        start: the same shape; where the first step begins, once it is in the box.
        gradient: of changed images, without a graph; may be overwritten.

    Returns:
        The same shape and range.
    """
    low, high = (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1)
    changed = torch.clamp(start, low, high)
    for _ in range(steps):
        changed = torch.clamp(changed + step * gradient(changed).sign_(), low, high)
    return changed
