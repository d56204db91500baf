"""Projected gradient descent, an attack on a classifier (Madry et al. 2018, section 2.1 and equation 2)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def attacked(
    scores: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    epsilon: float,
    step: float,
    steps: int,
) -> Tensor:
    """`images`, changed by at most `epsilon` (the maximum norm) so that their cross entropy rises.

    Each of the `steps` adds `step` times the sign of the gradient, and goes back into the box of what is allowed. Only
    the gradient of the images is computed and kept, for one step at a time.

    Args:
        scores: images to class scores (N, C), those of an image by itself, by weights outside of autograd.
        images: (N, 3, S, S) in [0, 1].
        labels: (N,) int64.
        start: (N, 3, S, S) in [-1, 1], where in the box the first step begins.

    Returns:
        The same shape and range.
    """
    low, high = (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1)
    changed = torch.clamp(images + epsilon * start, low, high)
    for _ in range(steps):
        changed.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(scores(changed), labels, reduction="sum")
        [gradient] = torch.autograd.grad(loss, changed)
        changed = torch.clamp(changed.detach() + step * gradient.sign_(), low, high)
    return changed
