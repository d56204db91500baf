"""Projected gradient descent, an attack on a classifier (Madry et al. 2018, section 2.1 and equation 2)."""

from collections.abc import Callable

import torch
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
            loss = _advantage(scores(changed), labels[:, None]).sum()
        [gradient] = torch.autograd.grad(loss, changed)
        changed = torch.clamp(changed.detach() + step * gradient.sign_(), low, high)
    return changed


def _advantage(scores: Tensor, labels: Tensor) -> Tensor:
    """The log-odds of all other classes against the `labels` (N, 1), of `scores` (N, C).

    Cross entropy is its softplus, so that their gradients have one sign. But that of cross entropy is lost to rounding
    where the classifier is sure, and an attack by it would seem to fail.
    """
    others = scores.scatter(1, labels, -torch.inf).logsumexp(dim=1, keepdim=True)
    return others - scores.gather(1, labels)
