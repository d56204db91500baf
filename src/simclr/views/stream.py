"""Batches of augmented views."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from simclr.augment import Draws, Values
from simclr.core import prefetch
from simclr.data import loader, sampling
from simclr.data.batch import Batch
from simclr.data.beton import Beton
from simclr.data.sampling import Indices
from simclr.device.transfer import Parcel
from simclr.distributed.session import Session
from simclr.views.compose import Views, by_view


@dataclass(frozen=True)
class ViewStream:
    """`views` of the samples of `source`, on `device`."""

    source: Beton
    views: Views
    device: torch.device

    def epoch(
        self, epoch: int, batch_size: int, session: Session, *, drop_last: bool, first: int = 0
    ) -> Iterator[Batch]:
        """This rank's share of every batch of an epoch, from the batch `first` on (see `sampling.shuffled_batches`);
        each is loaded in the background while the one before is used."""
        count = len(self.source)
        shares = sampling.shuffled_batches(
            count, batch_size, self.views.seed, epoch, session.rank, session.world_size, drop_last=drop_last
        )
        loaded = prefetch.prefetch(
            lambda samples: self.load(samples, epoch), shares[first:], loader.prefetch_batches(self.device)
        )
        for number, parcel in enumerate(loaded, first):
            yield self.batch(parcel, min(batch_size, count - number * batch_size))

    def load(self, samples: Indices, epoch: int) -> Parcel:
        """Host work for one batch: draw the views of the `samples` (B,) and read the pixels they need."""
        heights, widths = self.source.heights[samples], self.source.widths[samples]
        boxes, drawn = self.views.draw(samples, epoch, heights, widths)
        keys = Draws("dropout", self.views.seed, epoch, samples, self.views.count).keys()
        rows: Values = {"keys": by_view(keys), "labels": self.source.labels[samples], "samples": samples}
        rows |= self.views.rows(drawn, self.device)
        return loader.load(self.source, samples, boxes, self.views.resolution, self.device, rows)

    def batch(self, loaded: Parcel, total: int) -> Batch:
        """Do the device's work for one batch, of `total` samples over all ranks."""
        parcel = loaded.to(self.device)
        images = self.views.augment(loader.crops(parcel, self.views.resolution), parcel)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, parcel["keys"], parcel["labels"], parcel["samples"], self.views.count, total)
