"""MoCo's key network and its queue, step by step; that it learns, resumes and shards is tested by tests/contracts."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from simclr.core.errors import UserError
from simclr.data.batch import Batch
from simclr.data.converted import DatasetInfo
from simclr.methods.moco import MoCo
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import DIGESTS, striped

QUEUE = 24


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    train, val = striped(tmp_path / "train.beton", 34, 0), striped(tmp_path / "val.beton", 12, 1)
    return PretrainData(train, train, val, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS))


def trainer_of(data: PretrainData, **changes: object) -> tuple[Trainer, MoCo, list[Batch]]:
    trainer = Trainer(recipe(method="moco", **changes), data, ALONE, RunContext())
    trainer.learner.model.train()
    assert isinstance(trainer.method, MoCo)
    return trainer, trainer.method, list(trainer.stream.epoch(1, 8, ALONE, drop_last=True))


def test_the_key_network_follows_weights_and_statistics_by_the_momentum(data: PretrainData) -> None:
    trainer, method, batches = trainer_of(data, methods__moco__momentum=0.75)
    average = copy.deepcopy({**method.encoder.state_dict(), **method.head.state_dict()})
    for batch in batches:
        trainer.learner.step(batch, 1.0, 0.5)
        for name, value in {**method.encoder.state_dict(), **method.head.state_dict()}.items():
            if value.is_floating_point():
                average[name] = 0.75 * average[name] + 0.25 * value
    keys = {**method.key_encoder.state_dict(), **method.key_head.state_dict()}
    for name, value in keys.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name])


def test_the_queue_holds_the_latest_keys(data: PretrainData) -> None:
    trainer, method, batches = trainer_of(data)
    begun, seen = method.queue.clone(), []
    for number, batch in enumerate(batches, 1):
        seen.append(trainer.learner.step(batch, 1.0, 0.5).outputs[2])
        keys = torch.cat(seen)
        assert {tuple(row) for row in method.queue.tolist()} == {
            tuple(row) for row in torch.cat([begun[16 * number :], keys[-QUEUE:]]).tolist()
        }
        assert int(method.oldest) == 16 * number % QUEUE


def test_a_queue_shorter_than_a_batch_holds_its_last_keys(data: PretrainData) -> None:
    trainer, method, batches = trainer_of(data, methods__moco__queue=5)
    keys = trainer.learner.step(batches[0], 1.0, 0.5).outputs[2]
    assert torch.equal(method.queue, keys[-5:])


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
    assert 0 <= float(result.scalars()["clamped_rows"]) <= 1


@pytest.mark.parametrize("loss", ["supervised", "negative_sampling"])
def test_a_loss_that_takes_no_keys_is_refused(loss: str) -> None:
    takes = "decoupled, margin, nt_xent, reweighted, trimmed where pretrain.method is moco"
    with pytest.raises(UserError, match=f'^test: pretrain.loss = "{loss}" is not allowed; it takes {takes}$'):
        recipe(method="moco", loss=loss)
