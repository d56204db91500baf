"""Batches of augmented views."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.augment import Values
from simclr.core import prefetch
from simclr.core.randomness import permutation
from simclr.data import loader, sampling
from simclr.data.batch import Batch
from simclr.data.beton import Beton
from simclr.data.loader import Crops
from simclr.data.readahead import fits_memory, read_ahead
from simclr.data.sampling import Indices
from simclr.device.transfer import Parcel
from simclr.distributed.session import Session
from simclr.views.compose import Views, by_view

_SHOWN = 36
"""Samples in the picture of views."""


@dataclass(frozen=True)
class ViewStream:
    """The views of the samples of `source`, on `device`.

    Args:
        views: an entry for each size.
        window: for a file larger than memory: see `sampling.windowed_permutation`. Each window is read ahead while the
            one before is used.
    """

    source: Beton
    views: tuple[Views, ...]
    device: torch.device
    window: int | None = None

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        session: Session,
        *,
        drop_last: bool,
        pieces: int = 1,
        first: int = 0,
    ) -> Iterator[Batch]:
        """This rank's share of every batch of an epoch, from the batch `first` on (see `sampling.shuffled_batches`);
        each is loaded in the background while the one before is used."""
        count = len(self.source)
        shares = sampling.shuffled_batches(
            count, batch_size, self.views[0].seed, epoch, session.rank, session.world_size,
            drop_last=drop_last, pieces=pieces, window=self.window,
        )  # fmt: skip
        for number, parcel in enumerate(self.parcels(shares, epoch, batch_size, first), first):
            yield self.batch(parcel, min(batch_size, count - number * batch_size))

    def parcels(self, shares: list[Indices], epoch: int, batch_size: int, first: int = 0) -> Iterator[Parcel]:
        """The host's work for an epoch: what `load` gives for each of the `shares` of batches of `batch_size`, from the
        `first` on, loaded in the background while the one before is used."""

        def load(number: int) -> Parcel:
            if self.window and not fits_memory(self.source):
                self._read_ahead(shares, number, first, max(1, self.window // batch_size))
            return self.load(shares[number], epoch)

        return prefetch.prefetch(load, range(first, len(shares)), loader.prefetch_batches(self.device))

    def _read_ahead(self, shares: list[Indices], number: int, first: int, ahead: int) -> None:
        """At the first batch of each window, of `ahead` batches, ask for the next window; at the `first` batch of all,
        for its own too."""
        if number == first or number % ahead == 0:
            begin = first if number == first else number + ahead
            if parts := shares[begin : (number // ahead + 2) * ahead]:
                read_ahead(self.source, np.concatenate(parts))

    def load(self, samples: Indices, epoch: int) -> Parcel:
        """Host work for one batch: draw the views of the `samples` (B,) and read the pixels they need."""
        heights, widths = self.source.heights[samples], self.source.widths[samples]
        crops, keys = [], []
        rows: Values = {"labels": self.source.labels[samples], "samples": samples}
        for k, views in enumerate(self.views):
            boxes, drawn = views.draw(samples, epoch, heights, widths)
            crops.append(Crops(boxes, views.resolution))
            keys.append(by_view(views.draws("dropout", samples, epoch).keys()))
            rows |= {f"{k}.{name}": array for name, array in views.rows(drawn, self.device).items()}
        rows["keys"] = np.concatenate(keys)
        return loader.load(self.source, samples, crops, self.device, rows)

    def batch(self, loaded: Parcel, total: int) -> Batch:
        """Do the device's work for one batch, of `total` samples over all ranks."""
        parcel = loaded.to(self.device)
        images = tuple(
            self.augmented(parcel, k).contiguous(memory_format=torch.channels_last) for k in range(len(self.views))
        )
        count = sum(views.count for views in self.views)
        return Batch(images, parcel["keys"], parcel["labels"], parcel["samples"], count, total)

    def first_views(self, seed: int) -> tuple[npt.NDArray[np.uint8], ...]:
        """The views of some samples, drawn by the `seed`, in the first epoch: (N, V, S, S, 3) for each size."""
        shown = permutation(len(self.source), seed)[:_SHOWN]
        return tuple(
            (images * 255).round().byte().unflatten(0, (-1, len(shown))).permute(1, 0, 3, 4, 2).cpu().numpy()
            for images in self.batch(self.load(shown, epoch=1), len(shown)).images
        )

    def augmented(self, parcel: Parcel, k: int) -> Tensor:
        """The views of the k-th size in `parcel`, which is on the device: (V_k * B, 3, S, S) float32 in [0, 1]."""
        views = self.views[k]
        rows = {name.partition(".")[2]: parcel[name] for name in parcel if name.startswith(f"{k}.")}
        return views.augment(loader.crops(parcel, k, views.resolution), rows)
