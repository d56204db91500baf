"""What every method of `simclr.methods` keeps: a new file is tried before its author has written a test."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from simclr.core import options
from simclr.core.errors import Stopped, UserError
from simclr.distributed.session import Session
from simclr.learning.learner import StepResult
from simclr.models.resnet import Encoder
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.logs import logged
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe
from tests.training import test_resume
from tests.training.test_pretrain import on_rank, stripes

NAMES = [name for name in options.names("methods") if hasattr(options.module("methods", name), "build")]
"""Of the methods that train."""
PLAIN = {"optimizer__name": "sgd", "optimizer__lr": 0.02, "optimizer__warmup_epochs": 0}


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 34)


def of(name: str, **changes: Any) -> Recipe:
    return recipe(method=name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_its_loss_falls(name: str, data: PretrainData) -> None:
    changes = {"optimizer__name": "adamw", "optimizer__lr": 0.003, "optimizer__lr_scaling": "none"}
    result = on_rank(ALONE, data, of(name, epochs=30, **changes))
    losses = [row["loss"] for row in result[0][0]]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1


def of_first_step(session: Session, data: PretrainData, chosen: Recipe) -> tuple[Trainer, StepResult]:
    trainer = Trainer(chosen, data, session, RunContext())
    trainer.learner.model.train()
    batch = next(trainer.stream.epoch(1, chosen.parameters.batch_size, session, drop_last=True))
    result = trainer.learner.step(batch, 1.0, 0.5)
    assert all(value.ndim == 0 for value in result.scalars().values())
    return trainer, result


@pytest.mark.parametrize("name", NAMES)
def test_representations_come_first_and_have_a_row_for_each_image(name: str, data: PretrainData) -> None:
    trainer, result = of_first_step(ALONE, data, of(name))
    assert result.outputs[0].shape[1] == trainer.method.encoder.dimension
    [rows] = {len(output) for output in result.outputs}
    assert rows in {8, 8 * result.batch.views}


@pytest.mark.parametrize("name", NAMES)
def test_what_learns_is_what_its_groups_say(name: str, data: PretrainData) -> None:
    trainer = Trainer(of(name, **PLAIN), data, ALONE, RunContext())
    before = {key: weight.clone() for key, weight in trainer.method.named_parameters()}
    for batch in trainer.stream.epoch(1, 8, ALONE, drop_last=True):
        trainer.learner.step(batch, 1.0, 0.5)
    listed = [id(weight) for group in trainer.method.parameter_groups() for weight in group["params"]]
    assert len(listed) == len(set(listed))
    for key, weight in trainer.method.named_parameters():
        assert (id(weight) in listed) == weight.requires_grad, key
        assert not weight.requires_grad or not torch.equal(weight, before[key]), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_stopped_in_mid_epoch_it_goes_on_to_the_same_bytes(
    name: str, stop: int, data: PretrainData, tmp_path: Path
) -> None:
    chosen = of(name)
    whole, _ = test_resume.run(tmp_path / "whole", data, chosen)
    with pytest.raises(Stopped):
        test_resume.run(tmp_path, data, chosen, stop=stop)
    assert test_resume.same(test_resume.run(tmp_path, data, chosen)[0], whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_learn_what_one_process_learns(name: str, world: int, data: PretrainData) -> None:
    chosen = of(name, **PLAIN)
    (history, _), whole = on_rank(ALONE, data, chosen)
    for (found, _), encoder in on_ranks(world, on_rank, data, chosen):
        for ours, theirs in zip(found, history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        for key, tensor in whole.items():
            torch.testing.assert_close(encoder[key], tensor, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_after_every_step_it_is_told_how_far_the_run_is(name: str, data: PretrainData) -> None:
    told: list[float] = []
    method = type(Trainer(of(name), data, ALONE, RunContext()).method)
    with mock.patch.object(method, "after_step", lambda _, done, session: told.append(done)):
        on_rank(ALONE, data, of(name))
    assert told == [step / 8 for step in range(1, 9)]


@pytest.mark.parametrize("name", NAMES)
def test_what_learns_from_labels_is_refused_where_there_are_none(name: str) -> None:
    if hasattr(options.module("methods", name), "NEEDS_LABELS"):
        with pytest.raises(
            UserError, match=f'pretrain.split = "unlabelled" is not allowed; it takes train, since {name}'
        ):
            of(name, split="unlabelled")
    else:
        assert of(name, split="unlabelled").parameters.split == "unlabelled"


@pytest.mark.parametrize("name", NAMES)
def test_a_collapse_raises_the_alarm_once_and_a_sound_run_does_not(name: str, data: PretrainData) -> None:
    messages: list[str] = []
    with logged(messages):
        on_rank(ALONE, data, of(name, epochs=12))
    assert messages == []
    forward = Encoder.forward

    def collapsed(encoder: Encoder, images: Tensor) -> Tensor:
        return 1 + 1e-4 * forward(encoder, images)

    with logged(messages), mock.patch.object(Encoder, "forward", collapsed):
        on_rank(ALONE, data, of(name, epochs=12))
    assert len(messages) == 1
    assert messages[0].startswith("at step 20 the representations of all images are nearly the same (mean cosine")
