"""Representations: every image encoded once, without chance, by a frozen encoder."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from simclr import batches, crop, loader, shares
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Preparation
from simclr.report import progress
from simclr.transfer import Parcel


def _go_on() -> None:
    pass


@torch.no_grad()
def representations(
    encoder: nn.Module,
    beton: Beton,
    samples: batches.Indices,
    preparation: Preparation,
    batch_size: int,
    session: Session,
    title: str = "",
    between: Callable[[], None] = _go_on,
) -> Tensor:
    """h (n, D) float32 of this rank's share (see `shares`) of the `samples` (N,), in their order, on its device.

    `encoder` maps (B, 3, S, S) to (B, D); it is put into eval mode for it and left in the mode it was in. A `title`
    shows a progress bar. `between` is called after every batch of at most `batch_size` images, equally often on all
    ranks.
    """
    share = samples[shares.own(len(samples), session)]
    # every rank encodes equally many: the last sample stands in for those that lack, and is cut off again
    own = np.concatenate([share, samples[-1:].repeat(shares.size(len(samples), session) - len(share))])

    def load(batch: batches.Indices) -> Parcel:
        boxes = crop.central_boxes(beton.heights[batch], beton.widths[batch], preparation.crop_share)[:, None]
        return loader.load(beton, batch, boxes, preparation.size, session.device)

    training = encoder.training
    encoder.eval()
    rows: Tensor | None = None
    done = 0
    try:
        with progress.bar(len(own), "img", title, shown=bool(title) and session.leads) as bar:
            ahead = loader.ahead(session.device)
            for loaded in batches.prefetched(load, batches.in_order(own, batch_size), ahead):
                images = preparation.normalise(loader.crops(loaded.to(session.device), preparation.size))
                h = encoder(images.contiguous(memory_format=torch.channels_last))
                if rows is None:  # not put together from batches at the end, which would take them twice
                    rows = h.new_empty((len(own), *h.shape[1:]), dtype=torch.float32)
                rows[done : done + len(h)] = h
                done += len(h)
                bar.update(len(h))
                between()
    finally:
        encoder.train(training)
    assert rows is not None
    return rows[: len(share)]
