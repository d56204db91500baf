"""An alarm for collapse: a network that maps all images to nearly one representation or projection."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

_log = logging.getLogger(__name__)
_LIMIT = 0.999
"""Mean cosine similarity from which an encoder counts as collapsed; untrained ones have 0.2 to 0.9 in training mode
with BatchNorm, but a ResNet-101 without norms has 0.9997."""


@torch.no_grad()
def similarity(h: Tensor) -> float:
    """The mean cosine similarity of all pairs of the representations h (N, D); that of two zeros is 1."""
    directions = F.normalize(h.double(), dim=1, eps=1e-300)  # in float32 squares of less than 1e-19 are 0
    no_direction = (h == 0).all(dim=1, keepdim=True)
    return torch.cat([directions, no_direction], dim=1).mean(dim=0).square().sum().item()


class CollapseAlarm:
    """Warns once in a process that `warns`."""

    def __init__(self, *, warns: bool = True) -> None:
        self._rang = not warns

    def watch(self, step: int, representations: float, projections: float) -> None:
        """Warn where the mean cosine similarity of one of the two is high at `step`, but for the first step, whose
        outputs are those of the initial weights.

        By the BatchNorm at its end an encoder may keep images apart whose projections are one.
        """
        if step == 1:
            return
        for found, what, part in (
            (representations, "representations", "encoder"),
            (projections, "projections", "projection head"),
        ):
            if found > _LIMIT and not self._rang:
                self._rang = True
                _log.warning(
                    f"at step {step} the {what} of all images are nearly the same (mean cosine similarity "
                    f"{found:.4f}): the {part} has collapsed, or not begun to tell them apart"
                )
