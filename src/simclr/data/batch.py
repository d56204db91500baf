"""The batch of views of one training step."""

from collections.abc import Iterator, Sequence
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

    def pieces(self, count: int) -> Iterator[tuple[Images, Tensor]]:
        """The images and keys of `count` equal parts of the samples, in their order; one copy at a time."""
        for number in range(count):
            images = (
                samples_part(views, len(views) // len(self.labels), number, count).contiguous(
                    memory_format=torch.channels_last
                )
                for views in self.images
            )
            yield tuple(images), samples_part(self.keys, self.views, number, count)


def samples_part(rows: Tensor, views: int, number: int, count: int) -> Tensor:
    """Of rows (V * B, ...) the part `number` of `count` equal parts of the samples: (V * B / count, ...)."""
    part: Tensor = rows.unflatten(0, (views, -1)).chunk(count, dim=1)[number]
    return part.flatten(0, 1)


def join_samples(parts: Sequence[Tensor], views: int) -> Tensor:
    """The rows of which `parts` are all the `samples_part`s."""
    return torch.cat([part.unflatten(0, (views, -1)) for part in parts], dim=1).flatten(0, 1)
