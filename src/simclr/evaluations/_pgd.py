"""An attack on a classifier by projected gradient descent."""

from collections.abc import Callable

import torch
from torch import Tensor

from simclr.views import pgd


def attacked(
    scores: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    epsilon: float,
    step: float,
    steps: int,
) -> Tensor:
    """`images`, changed by at most `epsilon` (the maximum norm) so that their cross entropy rises: see `pgd`.

    Only the gradient of the images is computed and kept, for one step at a time.

    Args:
        scores: images to class scores (N, C), those of an image by itself, by weights outside of autograd.
        images: (N, 3, S, S) in [0, 1].
        labels: (N,) int64.
        start: (N, 3, S, S) in [-1, 1], where in the box the first step begins.

    Returns:
        The same shape and range.
    """

    def gradient(changed: Tensor) -> Tensor:
        changed.requires_grad_()
        with torch.enable_grad():
            advantage = _advantage(scores(changed), labels[:, None]).sum()
        [found] = torch.autograd.grad(advantage, changed)
        changed.requires_grad_(False)
        return found

    return pgd.attacked(images, images + epsilon * start, gradient, epsilon, step, steps)


def _advantage(scores: Tensor, labels: Tensor) -> Tensor:
    """The log-odds of all other classes against the `labels` (N, 1), of `scores` (N, C).

    Cross entropy is its softplus, so that their gradients have one sign. But that of cross entropy is lost to rounding
    where the classifier is sure, and an attack by it would seem to fail.
    """
    others = scores.scatter(1, labels, -torch.inf).logsumexp(dim=1, keepdim=True)
    return others - scores.gather(1, labels)
