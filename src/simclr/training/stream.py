"""Batches of augmented views."""

from dataclasses import dataclass

import torch
from torch import Tensor

from simclr.augment import views
from simclr.augment.views import ViewParams
from simclr.data import loader
from simclr.data.beton import Beton
from simclr.data.sampling import Indices
from simclr.device.transfer import Parcel


@dataclass(frozen=True)
class ViewStream:
    """Two views of any samples of `source`, drawn by `seed`, on `device`."""

    source: Beton
    parameters: ViewParams
    seed: int
    device: torch.device

    def load(self, samples: Indices, epoch: int) -> Parcel:
        """Host work for one batch: draw the views of the `samples` (B,) and read the pixels they need."""
        heights, widths = self.source.heights[samples], self.source.widths[samples]
        draws = views.draw(self.parameters, heights, widths, self.seed, epoch, samples)
        rows = views.rows(draws, self.parameters, self.device)
        return loader.load(self.source, samples, draws.boxes, self.parameters.resolution, self.device, rows)

    def views(self, loaded: Parcel) -> tuple[Tensor, Tensor]:
        """Device work for one batch: (2B, 3, S, S) in [0, 1], the second views after the first; and their keys (2B,)
        for dropout."""
        batch = loaded.to(self.device)
        augmented = views.augment(loader.crops(batch, self.parameters.resolution), batch, self.parameters)
        return augmented.contiguous(memory_format=torch.channels_last), batch["keys"]
