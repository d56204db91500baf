"""An alarm for collapse: an encoder that maps all images to nearly one representation."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

_log = logging.getLogger(__name__)
_LIMIT = 0.999
"""Mean cosine similarity from which an encoder counts as collapsed; untrained ones have 0.2 to 0.9 in training mode."""


class CollapseAlarm:
    """Warns once in a process that `warns`."""

    def __init__(self, *, warns: bool = True) -> None:
        self._rang = not warns

    @torch.no_grad()
    def similarity(self, h: Tensor, step: int) -> float:
        """The mean cosine similarity of all pairs of the representations h (N, D) of a step; warns where it is high."""
        similarity = F.normalize(h.float(), dim=1).mean(dim=0).square().sum().item()
        if similarity > _LIMIT and not self._rang:
            self._rang = True
            _log.warning(
                f"at step {step} the representations of all images are nearly the same (mean cosine similarity "
                f"{similarity:.4f}): the encoder has collapsed"
            )
        return similarity
