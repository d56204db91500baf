"""The training of a range test, on a few made-up images."""

import dataclasses
import itertools
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simclr.core.errors import Stopped, UserError
from simclr.core.signals import Interruption
from simclr.data.batch import Batch
from simclr.data.converted import DatasetInfo
from simclr.learning.learner import Learner, StepResult
from simclr.lr_range.range_test import Curve, range_test
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe

RATES = np.geomspace(1e-3, 10, 9)


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    train = stored(tmp_path / "train.beton", noise(20, 8, seed=0), np.arange(20) % 2)
    return PretrainData(train, train, train, DatasetInfo(["a", "b"], [0.4] * 3, [0.3] * 3, {}))


def run(data: PretrainData, interruption: Interruption | None = None, **changes: Any) -> Curve:
    return range_test(recipe(**changes), data, ALONE, RATES, interruption or Interruption())


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_it_is_the_trainers_own_steps_at_the_scaled_rates(name: str, data: PretrainData) -> None:
    changes: dict[str, Any] = {"optimizer__name": name, "optimizer__lr": 0.3, "optimizer__lr_scaling": "sqrt"}
    trainer = Trainer(recipe(**changes), data, ALONE, RunContext())
    trainer.learner.model.train()
    batches = itertools.chain(*(trainer.stream.epoch(epoch, 8, ALONE, drop_last=True) for epoch in range(1, 6)))
    losses = []
    for rate, batch in zip(RATES, batches, strict=False):
        for group in trainer.learner.optimizer.param_groups:
            group["peak_lr"] = rate * math.sqrt(8)
        losses.append(trainer.learner.step(batch, 1, 0.5).loss.item())
    curve = run(data, **changes)
    assert curve.losses == pytest.approx(losses, rel=1e-6)
    assert list(curve.rates) == list(RATES)
    assert not curve.diverged


def test_the_same_seed_gives_the_same_losses_and_another_one_others(data: PretrainData) -> None:
    assert list(run(data).losses) == list(run(data).losses)
    assert list(run(data).losses) != list(run(data, seed=1).losses)


def test_a_loss_that_is_not_finite_ends_it(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter([3.0, 2.5, 2.0, math.nan])

    def step(learner: Learner, batch: Batch, factor: float, done: float) -> StepResult:
        nothing = torch.zeros(())
        return StepResult(batch, torch.tensor(next(made)), (nothing,), dict, nothing)

    monkeypatch.setattr(Learner, "step", step)
    curve = run(data)
    assert list(curve.losses) == [3.0, 2.5, 2.0]
    assert list(curve.rates) == list(RATES[:3])
    assert curve.diverged
    made = iter([math.inf])
    with pytest.raises(UserError, match="not finite before the first step"):
        run(data)


def test_a_signal_ends_it_after_the_step(data: PretrainData) -> None:
    interruption = Interruption()
    interruption.number = signal.SIGINT
    with pytest.raises(Stopped, match="stopped by SIGINT at step 1 of 9; nothing was written"):
        run(data, interruption)


def test_what_pretraining_refuses_of_the_data_is_refused(data: PretrainData) -> None:
    with pytest.raises(UserError, match="batch_size = 21 is not allowed; it takes at most 20"):
        run(data, batch_size=21)


def test_a_method_that_trains_nothing_is_refused(data: PretrainData) -> None:
    with pytest.raises(
        UserError, match=r"pretrain\.method = \"?pretrained\"? is not allowed; it takes one that trains"
    ):
        run(data, method="pretrained")


def test_images_without_labels_take_what_learns_without_them(data: PretrainData) -> None:
    unlabelled = dataclasses.replace(data, info=dataclasses.replace(data.info, classes=[]))
    with pytest.raises(UserError, match=r"pretrain\.method = .*classifier.* it takes one that learns without labels"):
        run(unlabelled, method="classifier")
