"""The file of class scores that linear_eval writes: a table for each probe, and labels, in the order of the split."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from simclr.core import arrays


def save(path: Path, scores: Mapping[str, Tensor], labels: Tensor) -> None:
    """Write `path`: the `scores` (N, C) float32 of each probe by its name, and "labels" (N,) int64."""
    arrays.save(path, {name: values.float().numpy() for name, values in scores.items()} | {"labels": labels.numpy()})
