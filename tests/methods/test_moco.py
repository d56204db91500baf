"""MoCo's key network and its queue, step by step; that it learns, resumes and shards is tested by tests/contracts."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from simclr.core.errors import UserError
from simclr.data.batch import Batch
from simclr.distributed.session import Session
from simclr.methods.moco import MoCo
from simclr.training import pretrain
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.contracts.test_methods import PLAIN
from tests.helpers import trainers
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import stripes

QUEUE = 24


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 34)


def trainer_of(data: PretrainData, session: Session = ALONE, **changes: Any) -> tuple[Trainer, MoCo, list[Batch]]:
    trainer, batches = trainers.trainer_of(data, session, method="moco", **changes)
    assert isinstance(trainer.method, MoCo)
    return trainer, trainer.method, batches


def test_the_key_network_follows_weights_and_statistics_by_the_momentum(data: PretrainData) -> None:
    """As the mean of their values after each step, until the momentum says more of the old ones."""
    trainer, method, batches = trainer_of(data, methods__moco__momentum=0.6)
    values: list[dict[str, torch.Tensor]] = []
    average: dict[str, torch.Tensor] = {}
    for step, batch in enumerate(batches, 1):
        trainer.learner.step(batch, 1.0, 0.5)
        network = {**method.encoder.state_dict(), **method.head.state_dict()}
        values.append({name: value.clone() for name, value in network.items() if value.is_floating_point()})
        for name, value in values[-1].items():
            if step <= 2:
                average[name] = torch.stack([earlier[name] for earlier in values]).mean(dim=0)
            else:
                average[name] = 0.6 * average[name] + 0.4 * value
        keys = {**method.key_network.encoder.state_dict(), **method.key_network.head.state_dict()}
        for name in average:
            torch.testing.assert_close(keys[name], average[name])
    assert any("running_var" in name for name in average)


def test_the_queue_holds_the_latest_keys(data: PretrainData) -> None:
    """Of the last batch of which not all have a place, any."""
    trainer, method, batches = trainer_of(data)
    begun = rows_of(method.queue)
    first, second, third = (rows_of(trainer.learner.step(batch, 1.0, 0.5).outputs[2]) for batch in batches[:3])
    held = rows_of(method.queue)
    assert len(held) == QUEUE
    assert third <= held
    assert len(held & second) == QUEUE - 16
    assert not held & (begun | first)
    assert int(method.oldest) == 3 * 16 % QUEUE


def rows_of(keys: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in keys.tolist()}


def test_a_queue_shorter_than_a_batch_holds_some_keys_of_all_views(data: PretrainData) -> None:
    trainer, method, batches = trainer_of(data, methods__moco__queue=10)
    views = trainer.learner.step(batches[0], 1.0, 0.5).outputs[2].chunk(2)
    held = rows_of(method.queue)
    assert held <= rows_of(views[0]) | rows_of(views[1])
    assert all(held & rows_of(view) for view in views)


def queue_of(session: Session, data: PretrainData, changes: dict[str, Any]) -> torch.Tensor:
    trainer, method, _ = trainer_of(data, session, **changes)
    for batch in trainer.stream.epoch(1, 8, session, drop_last=True):
        trainer.learner.step(batch, 1.0, 0.5)
    return method.queue.sort(dim=0).values


@pytest.mark.parametrize("changes", [{}, {"piece_size": 4}])
@pytest.mark.parametrize("queue", [5, 20])
def test_on_ranks_the_queue_holds_the_same_keys(queue: int, changes: dict[str, Any], data: PretrainData) -> None:
    changes = {**changes, **PLAIN, "methods__moco__queue": queue, "models__resnet__norm": "none"}
    changes |= {"methods__moco__head__batch_norm": False}
    alone = queue_of(ALONE, data, changes)
    for other in on_ranks(2, queue_of, data, changes):
        torch.testing.assert_close(other, alone, rtol=1e-3, atol=1e-5)


def test_a_key_depends_on_its_image_alone(data: PretrainData) -> None:
    """Where BatchNorm over the batch would tell which key belongs to a query."""
    _, method, batches = trainer_of(data)
    images, dropout = batches[0].images[0], batches[0].keys
    alone = torch.cat(
        [method.forward((images[i : i + 1].expand(2, -1, -1, -1),), dropout[:2])[2][:1] for i in range(4)]
    )
    torch.testing.assert_close(method.forward((images,), dropout)[2][:4], alone)


def test_its_first_loss_is_the_papers(data: PretrainData) -> None:
    """Equation 1 of He et al. 2020, of both views as queries; every key of the first queue is random."""
    trainer, method, batches = trainer_of(data)
    queue = F.normalize(method.queue.clone(), dim=1)
    result = trainer.learner.step(batches[0], 1.0, 0.5)
    q, k = (F.normalize(rows, dim=1) for rows in result.outputs[1:])
    losses = []
    for i in range(16):
        logits = torch.cat([(q[i] @ k[(i + 8) % 16])[None], queue @ q[i]]) / 0.5
        losses.append(F.cross_entropy(logits[None], torch.tensor([0])))
    torch.testing.assert_close(result.loss, torch.stack(losses).mean())


def test_metrics_of_its_loss_are_of_the_queue_that_it_had(data: PretrainData) -> None:
    trainer, method, batches = trainer_of(data, loss="reweighted", losses__reweighted__tau_plus=0.5)
    queue = method.queue.clone()
    result = trainer.learner.step(batches[0], 1.0, 0.5)
    assert not torch.equal(method.queue, queue)
    assert torch.equal(method._keys.queue, queue)
    scalars = result.scalars()
    assert 0 <= float(scalars["clamped_rows"]) <= 1
    q, k = (F.normalize(rows, dim=1) for rows in result.outputs[1:])
    positive = torch.stack([q[i] @ k[(i + 8) % 16] for i in range(16)]).mean()
    torch.testing.assert_close(scalars["positive_similarity"], positive)
    torch.testing.assert_close(scalars["negative_similarity"], (q @ F.normalize(queue, dim=1).T).mean())


@pytest.mark.parametrize("loss", ["supervised", "negative_sampling"])
def test_a_loss_that_takes_no_keys_is_refused(loss: str) -> None:
    refusal = f'^test: pretrain.loss = "{loss}" is not allowed; it takes .* where pretrain.method is moco$'
    with pytest.raises(UserError, match=refusal) as raised:
        recipe(method="moco", loss=loss)
    takes = str(raised.value).partition("it takes ")[2].partition(" where ")[0].split(", ")
    assert {"decoupled", "margin", "nt_xent", "reweighted", "trimmed"} <= set(takes)
    assert loss not in takes


def test_the_encoder_that_is_saved_is_the_one_that_learns(data: PretrainData) -> None:
    """Not its moving average."""
    chosen = recipe(method="moco", epochs=1, methods__moco__momentum=0.99, **PLAIN)
    result = pretrain.pretrain(chosen, data, ALONE, RunContext())
    trainer, method, batches = trainer_of(data, epochs=1, methods__moco__momentum=0.99, **PLAIN)
    for number, batch in enumerate(batches):
        trainer.learner.step(batch, trainer._factor(number), (number + 1) / len(batches))
    for name, value in method.encoder.state_dict().items():
        assert torch.equal(value, result.encoder.state_dict()[name]), name
    weight, average = (next(encoder.parameters()) for encoder in (method.encoder, method.key_network.encoder))
    assert not torch.equal(weight, average)
