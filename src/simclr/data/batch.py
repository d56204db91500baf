"""The batch of views of one training step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Images = tuple[Tensor, ...]
"""Views of one size each: (V_k * B, 3, S_k, S_k) float32, first views before second ones; channels last in memory."""


@dataclass(frozen=True)
class Batch:
    """V views of each of this rank's B samples, on a device.

    Rows of views, such as `keys`, come in the order of `images`: the V_0 views of the first size, then those of the
    next.
    """

    images: Images
    keys: Tensor
    """(V * B,) int64, the keys of the dropout masks: see `randomness.reaches`."""
    labels: Tensor
    """(B,) int64; -1 for a sample without a label."""
    samples: Tensor
    """(B,) int64, the samples' indices in their split."""
    views: int
    """V, of all sizes."""
    total: int
    """Samples of the global batch of this step."""

    def pieces(self, count: int) -> list[tuple[Images, Tensor]]:
        """The images and keys of `count` equal parts of the samples, in their order."""
        samples = len(self.labels)
        images = zip(*(split_samples(views, len(views) // samples, count) for views in self.images), strict=True)
        return [
            (tuple(views.contiguous(memory_format=torch.channels_last) for views in piece), keys)
            for piece, keys in zip(images, split_samples(self.keys, self.views, count), strict=True)
        ]


def split_samples(rows: Tensor, views: int, count: int) -> list[Tensor]:
    """Rows (V * B, ...) in `count` equal parts of the samples: (V * B / count, ...) each."""
    return [part.flatten(0, 1) for part in rows.unflatten(0, (views, -1)).chunk(count, dim=1)]


def join_samples(parts: Sequence[Tensor], views: int) -> Tensor:
    """The inverse of `split_samples`."""
    return torch.cat([part.unflatten(0, (views, -1)) for part in parts], dim=1).flatten(0, 1)
