"""BYOL's target network and its loss, step by step; that it learns, resumes and shards is tested by tests/contracts."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from simclr.data.batch import Batch
from simclr.learning.projection_head import Head
from simclr.methods.byol import BYOL
from simclr.training.run_context import PretrainData
from simclr.training.trainer import Trainer
from tests.helpers import trainers
from tests.helpers.logs import logged
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import on_rank, stripes


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 34)


def trainer_of(data: PretrainData, **changes: Any) -> tuple[Trainer, BYOL, list[Batch]]:
    trainer, batches = trainers.trainer_of(data, method="byol", **changes)
    assert isinstance(trainer.method, BYOL)
    return trainer, trainer.method, batches


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
    """Section 3.3: tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2."""
    trainer, method, batches = trainer_of(data, methods__byol__momentum=0.4)
    for step, batch in enumerate(batches, 1):
        before = first_weight(method.target_network)
        trainer.learner.step(batch, 1.0, step / len(batches))
        kept = 1 - 0.6 * (math.cos(math.pi * step / len(batches)) + 1) / 2
        expected = kept * before + (1 - kept) * first_weight(method.encoder)
        torch.testing.assert_close(first_weight(method.target_network), expected)
    assert kept == 1
    assert not torch.equal(before, first_weight(method.encoder))


def first_weight(network: nn.Module) -> torch.Tensor:
    return next(network.parameters()).detach().clone()


def test_projections_that_become_one_raise_the_alarm(data: PretrainData) -> None:
    """Which the representations, behind the encoder's BatchNorm, need not show."""
    messages: list[str] = []
    forward = Head.forward

    def collapsed(head: Head, h: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return 1 + 1e-4 * forward(head, h, keys)

    with logged(messages), mock.patch.object(Head, "forward", collapsed):
        on_rank(ALONE, data, recipe(method="byol", epochs=12))
    assert len(messages) == 1
    assert messages[0].startswith(
        "at step 20 the projections of all images are nearly the same (mean cosine similarity 1."
    )
    assert messages[0].endswith("): the projection head has collapsed, or not begun to tell them apart")


def test_targets_are_normalised_over_the_batch(data: PretrainData) -> None:
    """As predictions are: by running statistics the digits learnt less."""
    _, method, batches = trainer_of(data)
    targets = method.forward(batches[0].images, batches[0].keys)[3]
    torch.testing.assert_close(targets.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.var(dim=0, unbiased=False), torch.ones(6), atol=1e-2, rtol=0)


def test_both_encoders_compute_in_bf16_and_both_heads_do_not(data: PretrainData) -> None:
    _, method, batches = trainer_of(data)
    types: dict[str, torch.dtype] = {}
    layers = {"encoder.conv1": torch.bfloat16, "head.hidden.0": torch.float32}
    modules = dict(method.named_modules())
    expected = {f"{network}{name}": dtype for name, dtype in layers.items() for network in ("", "target_network.")}
    expected["predictor.0"] = torch.float32
    for name in expected:
        modules[name].register_forward_hook(lambda _, __, output, name=name: types.update({name: output.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        method.forward(batches[0].images, batches[0].keys)
    assert types == expected


def test_its_predictor_has_no_batch_norm_at_its_end(data: PretrainData) -> None:
    for normed in (True, False):
        _, method, _ = trainer_of(data, methods__byol__head__batch_norm=normed)
        names = [type(layer).__name__ for layer in method.predictor]
        assert names == ["Linear", *["BatchNorm1d"] * normed, "ReLU", "Linear"]
