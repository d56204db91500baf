"""The attack on a view, against plain loops; that the method learns and resumes is tested by tests/contracts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from simclr.core.errors import Stopped
from simclr.data.batch import Batch
from simclr.training.run_context import PretrainData
from simclr.training.trainer import Trainer
from tests.contracts.test_losses import batch_of, by_loops, option
from tests.helpers import trainers
from tests.training.test_pretrain import stripes

BOUND = 8 / 255


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 34)


def trainer_of(data: PretrainData, **changes: Any) -> tuple[Trainer, Batch]:
    """And the first batch, of two views of eight samples."""
    values = {"methods__adversarial__epsilon": 8, "methods__adversarial__steps": 1} | changes
    trainer, batches = trainers.trainer_of(data, method="adversarial", **values)
    return trainer, batches[0]


def loops(trainer: Trainer, views: list[Tensor]) -> Tensor:
    """NT-Xent of `views` (8, 3, S, S) in [0, 1] each."""
    batch = batch_of(8, len(views))
    _, z = trainer.method((trainer.transform.normalise(torch.cat(views)),), batch.keys)
    return by_loops(option("nt_xent", temperature=0.5), z, batch)


def attack_by_loops(trainer: Trainer, first: Tensor, second: Tensor, steps: int, step: float) -> Tensor:
    """Section 3 of Kim et al. 2020, from the view itself."""
    changed = first.clone()
    for _ in range(steps):
        changed.requires_grad_()
        [gradient] = torch.autograd.grad(loops(trainer, [first, second, changed]), changed)
        changed = changed.detach() + step * gradient.sign()
        changed = torch.min(torch.max(changed, first - BOUND), first + BOUND).clamp(0, 1)
    return changed


@pytest.mark.parametrize(("steps", "share"), [(1, 1.0), (3, 0.5)])
def test_the_attack_is_the_papers(steps: int, share: float, data: PretrainData) -> None:
    changes = {"methods__adversarial__steps": steps, "methods__adversarial__step_size": share}
    trainer, batch = trainer_of(data, **changes)
    first, second = batch.images[0].chunk(2)
    expected = attack_by_loops(trainer, first, second, steps, share * BOUND)
    found = trainer.method.before_step(batch, trainer.learner.gradient).images[0][16:]
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, first)


def test_the_loss_is_that_of_three_views_and_the_attack_raises_it(data: PretrainData) -> None:
    trainer, batch = trainer_of(data, optimizer__lr=1e-12)
    first, second = batch.images[0].chunk(2)
    kept = [first.clone(), second.clone()]
    attacked = trainer.method.before_step(batch, trainer.learner.gradient).images[0][16:].clone()
    result = trainer.learner.step(batch, 1.0, 0.5)
    assert result.batch.views == 3
    with torch.no_grad():
        assert float(result.loss) == pytest.approx(float(loops(trainer, [*kept, attacked])), rel=1e-5)
        assert float(result.loss) > float(loops(trainer, [*kept, kept[0]])) + 0.01


def test_a_view_changes_within_its_bounds(data: PretrainData) -> None:
    trainer, batch = trainer_of(data, methods__adversarial__steps=5)
    before = batch.images[0].clone()
    attacked = trainer.method.before_step(batch, trainer.learner.gradient)
    torch.testing.assert_close(attacked.images[0][:16], before, rtol=0, atol=0)
    change = (attacked.images[0][16:] - before[:8]).abs()
    assert BOUND * 0.99 < float(change.max()) <= BOUND + 1e-6
    assert float(attacked.images[0].min()) >= 0
    assert float(attacked.images[0].max()) <= 1


def test_it_stands_after_the_views_of_its_size(data: PretrainData) -> None:
    trainer, batch = trainer_of(data, views__small__count=2)
    batch = replace(batch, keys=torch.arange(len(batch.keys)))
    attacked = trainer.method.before_step(batch, trainer.learner.gradient)
    assert [len(views) for views in attacked.images] == [24, 16]
    assert attacked.views == 5
    assert attacked.keys.tolist() == [*range(16), *range(8), *range(16, 32)]


@pytest.mark.parametrize("piece_size", [None, 2])
def test_the_attack_leaves_the_network_as_it_is(piece_size: int | None, data: PretrainData) -> None:
    trainer, batch = trainer_of(data, piece_size=piece_size)
    trainer.learner.step(batch, 1.0, 0.5)
    before = {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}
    gradients = [weight.grad.clone() for weight in trainer.method.parameters() if weight.grad is not None]
    trainer.method.before_step(batch, trainer.learner.gradient)
    torch.testing.assert_close(trainer.method.state_dict(), before, rtol=0, atol=0)
    after = [weight.grad for weight in trainer.method.parameters() if weight.grad is not None]
    torch.testing.assert_close(after, gradients, rtol=0, atol=0)


def test_without_batch_norm_the_gradient_by_pieces_is_that_of_the_whole_batch(data: PretrainData) -> None:
    def gradient(piece_size: int | None) -> Tensor:
        changes = {"models__resnet__norm": "none", "methods__adversarial__head__batch_norm": False}
        trainer, batch = trainer_of(data, piece_size=piece_size, **changes)
        [found] = trainer.learner.gradient(batch)
        return found

    whole = gradient(None)
    assert float(whole.abs().max()) > 1e-4
    torch.testing.assert_close(gradient(2), whole, rtol=1e-3, atol=1e-7)


def test_stopped_between_two_pieces_of_the_attack_all_is_as_before(data: PretrainData) -> None:
    trainer, batch = trainer_of(data, piece_size=2)
    before = {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}
    trainer._requests = lambda: [0, 15]  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        trainer.learner.step(batch, 1.0, 0.5)
    torch.testing.assert_close(trainer.method.state_dict(), before, rtol=0, atol=0)
