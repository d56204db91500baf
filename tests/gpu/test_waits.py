"""No step of a training waits for the device: tensors on the device "meta" have no values, and refuse to be read."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from simclr import presets
from simclr.data.batch import Batch
from simclr.data.converted import DatasetInfo
from simclr.distributed import pairwise
from simclr.distributed.session import Session
from simclr.training import recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from simclr.views.compose import Views
from tests.helpers.betons import noise, stored

META = Session(rank=0, world_size=1, device=torch.device("meta"))
SAMPLES, STEPS = 8, 3
CHANGES = {
    "as it is": [],
    "clipped gradients": ["pretrain.optimizer.clip_grad_norm=1"],
    "SGD": ["pretrain.optimizer.name=sgd"],
    "an online probe": ["pretrain.online_probe.lr=0.1"],
    "in pieces": ["pretrain.piece_size=4"],
    "penalties": ["pretrain.penalty.representations.l2=0.1", "pretrain.penalty.weights.smooth_l1=0.1"],
    "small views": ["pretrain.views.small.count=2"],
}


@dataclass(frozen=True)
class Stream:
    """In place of a ViewStream: batches of `views` without values."""

    views: tuple[Views, ...]

    def epoch(self, *_: object, **__: object) -> Iterator[Batch]:
        count = sum(views.count for views in self.views)
        for _step in range(STEPS):
            images = [
                torch.empty(views.count * SAMPLES, 3, views.resolution, views.resolution, device="meta")
                for views in self.views
            ]
            keys, labels, samples = (
                torch.empty(length, dtype=torch.int64, device="meta") for length in (count * SAMPLES, SAMPLES, SAMPLES)
            )
            yield Batch(tuple(images), keys, labels, samples, count, SAMPLES)


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_reads_nothing_from_the_device(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["encoder=resnet10_quarter", f"pretrain.batch_size={SAMPLES}", *CHANGES[change]]
    images = stored(tmp_path / "x.beton", noise(SAMPLES * STEPS, 32, seed=0), np.zeros(SAMPLES * STEPS, np.int64))
    data = PretrainData(images, images, images, DatasetInfo(["cat", "dog"], [0.5] * 3, [0.2] * 3, {}))
    trainer = Trainer(recipe.checked(presets.compose("cifar10", overrides), "test"), data, META, RunContext())
    trainer.stream = Stream(trainer.stream.views)  # type: ignore[assignment]
    for name in ("_log", "_check"):  # once in twenty steps, and at the end of an epoch
        monkeypatch.setattr(trainer, name, lambda *_: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "meta", 1 << 24)
    monkeypatch.setattr(Session, "mean", lambda *_: torch.zeros(()))  # at the end of an epoch too
    trainer.train(mock.Mock())
    assert trainer.state.epoch_step == STEPS


def test_what_is_read_is_seen() -> None:
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        torch.empty(1, device="meta").item()
