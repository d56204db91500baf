"""Representations: every image encoded once, without augmentation, by a frozen encoder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from simclr.core import prefetch
from simclr.core.errors import UserError
from simclr.data import crop, loader, sampling
from simclr.data.beton import Beton
from simclr.data.loader import Crops
from simclr.device.transfer import Parcel
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features.eval_transform import EvalTransform
from simclr.tracking import progress

_ROWS = 8192
"""Rows whose norms are checked at a time."""


@dataclass(frozen=True)
class Features:
    """This rank's share (see `shares`) of a split's representations, `h` (n, D) float32, and `labels` (n,) int64, in
    the order of its .beton.
    """

    h: Tensor
    labels: Tensor
    count: int
    """Images of the split, over all ranks."""


def is_finite(h: Tensor) -> bool:
    """Whether the rows of `h` (n, D) float32 and their norms, by which similarities are divided, are finite."""
    return all(block.norm(dim=1).isfinite().all() for block in h.split(_ROWS))


def _do_nothing() -> None:
    pass


@torch.no_grad()
def representations(
    encoder: nn.Module,
    beton: Beton,
    samples: sampling.Indices,
    transform: EvalTransform,
    batch_size: int,
    session: Session,
    title: str = "",
    after_batch: Callable[[], None] = _do_nothing,
) -> Tensor:
    """h (n, D) float32 of this rank's share (see `shares`) of the `samples` (N,), in their order, on its device.

    `encoder` maps (B, 3, S, S) to (B, D); it runs in eval mode, and its mode is restored. A `title` shows a progress
    bar. `after_batch` is called after every batch of at most `batch_size` images, equally often on all ranks.
    """
    share = samples[shares.own(len(samples), session)]
    # All ranks encode equally many images: the last sample pads a smaller share, and is cut off at the end.
    own = np.concatenate([share, samples[-1:].repeat(shares.size(len(samples), session) - len(share))])

    def load(batch: sampling.Indices) -> Parcel:
        boxes = crop.central_boxes(beton.heights[batch], beton.widths[batch], transform.crop_share)[:, None]
        return loader.load(beton, batch, [Crops(boxes, transform.size)], session.device)

    training = encoder.training
    encoder.eval()
    rows: Tensor | None = None
    done = 0
    try:
        with progress.bar(len(own), "img", title, shown=bool(title) and session.is_main) as bar:
            ahead = loader.prefetch_batches(session.device)
            for loaded in prefetch.prefetch(load, sampling.sequential_batches(own, batch_size), ahead):
                images = transform.normalise(loader.crops(loaded.to(session.device), 0, transform.size))
                h = encoder(images.contiguous(memory_format=torch.channels_last))
                if rows is None:  # preallocated: concatenation at the end would need twice the memory
                    rows = h.new_empty((len(own), *h.shape[1:]), dtype=torch.float32)
                rows[done : done + len(h)] = h
                done += len(h)
                bar.update(len(h))
                after_batch()
    finally:
        encoder.train(training)
    assert rows is not None
    return rows[: len(share)]


def encode_splits(
    encoder: nn.Module,
    splits: Mapping[str, Beton],
    transform: EvalTransform,
    batch_size: int,
    session: Session,
    title: str = "",
) -> dict[str, Features]:
    """Encode all images of the `splits` by `encoder`, which is moved to the device.

    A `title` precedes the names of the splits in the progress bars.

    Raises:
        UserError: an image cannot be read, or a representation is not finite.
    """
    encoder.to(session.device).to(memory_format=torch.channels_last)
    features = {}
    for name, split in splits.items():
        indices = np.arange(len(split))
        h = representations(encoder, split, indices, transform, batch_size, session, f"{title}{name}")
        labels = torch.from_numpy(split.labels[shares.own(len(split), session)]).to(session.device)
        features[name] = Features(h, labels, len(split))
        if not is_finite(h):
            raise UserError(
                f"{split.path}: the encoder's representations of these images are not finite, or too large for float32"
            )
    return features


def gather_to_main(splits: Mapping[str, Features], session: Session) -> dict[str, Features]:
    """The whole features of the `splits` on the main process's CPU; the other processes get empty ones."""
    return {
        name: Features(
            shares.gather_to_main(split.h, split.count, session),
            shares.gather_to_main(split.labels, split.count, session),
            split.count,
        )
        for name, split in splits.items()
    }
