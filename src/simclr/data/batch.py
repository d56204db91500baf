"""The batch of views of one training step."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """V views of each of this rank's B samples, on a device."""

    images: Tensor
    """(V * B, 3, S, S) float32, all first views before all second ones; channels last in memory."""
    keys: Tensor
    """(V * B,) int64, the keys of the dropout masks: see `randomness.reaches`."""
    labels: Tensor
    """(B,) int64; -1 for a sample without a label."""
    samples: Tensor
    """(B,) int64, the samples' indices in their split."""
    views: int
    """V."""
    total: int
    """Samples of the global batch of this step."""
