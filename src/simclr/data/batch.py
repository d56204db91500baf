"""What a method learns from in one step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """V views of each of this rank's B samples, on a device."""

    images: Tensor
    """(V * B, 3, S, S) float32, all first views before all second ones; channels last in memory."""
    keys: Tensor
    """(V * B,) int64, what dropout is drawn from: see `randomness.reaches`."""
    labels: Tensor
    """(B,) int64; -1 where a sample has none."""
    samples: Tensor
    """(B,) int64, the samples' indices in their split."""
    views: int
    """V."""
    total: int
    """Samples of this step, over all ranks."""
