"""Representations: every image encoded once, without chance, by a frozen encoder."""

import numpy as np
import torch
from torch import Tensor, nn

from simclr import batches, crop, loader
from simclr.beton import Beton
from simclr.distributed import Session
from simclr.encoder import Preparation
from simclr.report import progress
from simclr.transfer import Parcel


@torch.no_grad()
def representations(
    encoder: nn.Module,
    beton: Beton,
    samples: batches.Indices,
    preparation: Preparation,
    batch_size: int,
    session: Session,
    title: str = "",
) -> Tensor:
    """h (N, D) float32 on the CPU of the `samples` (N,), in their order, on every rank; the ranks share the work.

    `encoder` maps (B, 3, S, S) to (B, D); it is put into eval mode for it and left in the mode it was in. A `title`
    shows a progress bar.
    """
    # every rank encodes equally many: the last sample stands in for those that lack, and is cut off again
    padding = -len(samples) % session.world
    own = np.concatenate([samples, samples[-1:].repeat(padding)])[session.rank :: session.world]

    def load(batch: batches.Indices) -> Parcel:
        boxes = crop.central_boxes(beton.heights[batch], beton.widths[batch], preparation.crop_share)[:, None]
        return loader.load(beton, batch, boxes, preparation.size, session.device)

    training = encoder.training
    encoder.eval()
    encoded = []
    with progress.bar(len(own), "img", title, shown=bool(title) and session.leads) as bar:
        ahead = loader.ahead(session.device)
        for loaded in batches.prefetched(load, batches.in_order(own, batch_size), ahead):
            images = preparation.normalise(loader.crops(loaded.to(session.device), preparation.size))
            encoded.append(encoder(images.contiguous(memory_format=torch.channels_last)).float())
            bar.update(len(images))
    encoder.train(training)
    rows = torch.cat(encoded)
    gathered: Tensor = session.gather_rows(rows).view(session.world, *rows.shape)
    return gathered.transpose(0, 1).flatten(0, 1)[: len(samples)].cpu()
