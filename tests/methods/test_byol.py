"""BYOL's target network and its loss, step by step; that it learns, resumes and shards is tested by tests/contracts."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from simclr.data.batch import Batch
from simclr.methods.byol import BYOL
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import stripes


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 34)


def trainer_of(data: PretrainData, **changes: Any) -> tuple[Trainer, BYOL, list[Batch]]:
    trainer = Trainer(recipe(method="byol", **changes), data, ALONE, RunContext())
    trainer.learner.model.train()
    assert isinstance(trainer.method, BYOL)
    return trainer, trainer.method, list(trainer.stream.epoch(1, 8, ALONE, drop_last=True))


@pytest.mark.parametrize("views", [2, 3])
def test_its_loss_is_the_papers(views: int, data: PretrainData) -> None:
    """Equation 2 of Grill et al. 2020, the mean over all pairs of different views of a sample."""
    trainer, _, batches = trainer_of(data, views__count=views)
    result = trainer.learner.step(batches[0], 1.0, 0.5)
    _, _, predictions, targets = (output.detach().double() for output in result.outputs)
    losses = []
    for i in range(8):
        for one in range(views):
            for other in range(views):
                if one != other:
                    q, z = predictions[8 * one + i], targets[8 * other + i]
                    losses.append(2 - 2 * float(q @ z) / float(q.norm() * z.norm()))
    assert float(result.loss) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_target_network_gets_no_gradient_and_begins_as_the_network(data: PretrainData) -> None:
    _, method, batches = trainer_of(data)
    outputs = method.forward(batches[0].images, batches[0].keys)
    assert [output.requires_grad for output in outputs] == [True, True, True, False]
    torch.testing.assert_close(outputs[3], outputs[1])
    assert not any(weight.requires_grad for weight in method.target_network.parameters())


def test_the_target_network_follows_by_a_momentum_that_rises_to_one(data: PretrainData) -> None:
    """Section 3.2; where that keeps more of the old weights, they are the mean of the network's after each step."""
    trainer, method, batches = trainer_of(data, methods__byol__momentum=0.4)
    values: list[torch.Tensor] = []
    for step, batch in enumerate(batches, 1):
        before = next(method.target_network.parameters()).clone()
        done = step / len(batches)
        trainer.learner.step(batch, 1.0, done)
        values.append(next(method.encoder.parameters()).detach().clone())
        momentum = 1 - 0.6 * (math.cos(math.pi * done) + 1) / 2
        kept = min(momentum, 1 - 1 / step)
        expected = kept * before + (1 - kept) * values[-1]
        torch.testing.assert_close(next(method.target_network.parameters()), expected)
        if step == 2:
            torch.testing.assert_close(expected, torch.stack(values).mean(dim=0))
    method.target_network.steps.fill_(1_000_000)
    before = next(method.target_network.parameters()).clone()
    method.after_step(1.0, ALONE)
    torch.testing.assert_close(next(method.target_network.parameters()), before)


def test_targets_are_normalised_over_the_batch(data: PretrainData) -> None:
    """As predictions are: by running statistics the digits learnt less."""
    _, method, batches = trainer_of(data)
    targets = method.forward(batches[0].images, batches[0].keys)[3]
    torch.testing.assert_close(targets.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(dim=0, unbiased=False), torch.ones(6), atol=1e-2, rtol=0)


def test_its_predictor_has_no_batch_norm_at_its_end(data: PretrainData) -> None:
    for normed in (True, False):
        _, method, _ = trainer_of(data, methods__byol__head__batch_norm=normed)
        names = [type(layer).__name__ for layer in method.predictor]
        assert names == ["Linear", *["BatchNorm1d"] * normed, "ReLU", "Linear"]
