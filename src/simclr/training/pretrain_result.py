"""The outcome of a pretraining."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.learning.projection_head import Head


@dataclass(frozen=True)
class PretrainResult:
    """The selected encoder, and the course of its training."""

    encoder: Encoder
    head: Head | None
    """The projection head of the same step; None if the method has none."""
    transform: EvalTransform
    history: list[dict[str, float]]
    """Each epoch's mean loss and last learning rate."""
    validation: list[dict[str, float]]
    """The accuracies, as of `validation.top1`, after each epoch that was validated; none without labels."""
    metrics: dict[str, Any]
    views: tuple[npt.NDArray[np.uint8], ...]
    """The views of some samples, (N, V, S, S, 3) for each size."""
    starts: dict[int, int]
    """The number of processes from each step on at which the run started or resumed."""
