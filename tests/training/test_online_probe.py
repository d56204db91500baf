"""The probe beside pretraining: against a plain loop, over ranks, resumed; and that the encoder knows nothing of it."""

import io
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.data import beton
from simclr.data.batch import Batch
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.data.converted import DatasetInfo
from simclr.distributed.session import Session
from simclr.features.encode import representations
from simclr.learning.learner import StepResult
from simclr.training import pretrain
from simclr.training.checkpoints import Checkpoints
from simclr.training.online_probe import OnlineProbe
from simclr.training.pretrain import PretrainResult
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe
from tests.training.test_pretrain import DIGESTS, striped

PIECES: dict[str, Any] = {"piece_size": 4, "views__small__count": 1, "views__small__resolution": 6}
"""A batch in pieces, with views of two sizes."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PretrainData:
    """Every third sample of the pretraining has no label."""
    folder = tmp_path_factory.mktemp("data")
    train, val = striped(folder / "train.beton", 34, 0), striped(folder / "val.beton", 12, 1)
    source = without_labels(train, folder / "source.beton", np.arange(34) % 3 == 0)
    return PretrainData(source, train, val, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS))


def without_labels(file: Beton, path: Path, hidden: Any) -> Beton:
    images = (StoredImage(RAW, 8, 8, file.data[start : start + 192].tobytes()) for start in file.starts)
    beton.write(path, images, np.where(hidden, -1, file.labels), 192)
    return beton.read(path)


class InMemory(Checkpoints):
    """Keeps a checkpoint of every step, as bytes; a run goes on from `first`."""

    def __init__(self, first: bytes | None = None) -> None:
        super().__init__(None)
        self.first, self.kept = first, dict[int, bytes]()

    @property
    def due(self) -> bool:
        return True

    def latest(self) -> Any:
        return None if self.first is None else torch.load(io.BytesIO(self.first), weights_only=True)

    def save(self, step: int, state: Any, finite: Tensor) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.kept[step] = file.getvalue()


def trained(
    session: Session, data: PretrainData, chosen: Recipe, first: bytes | None = None
) -> tuple[PretrainResult, dict[int, bytes]]:
    """A run, and its checkpoints."""
    checkpoints = InMemory(first)
    return pretrain.pretrain(chosen, data, session, RunContext(checkpoints=checkpoints)), checkpoints.kept


def last(kept: dict[int, bytes]) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(kept[max(kept)]), weights_only=True)
    return state


def flat(state: Any) -> list[Any]:
    """The leaves of nested dicts and lists; tensors as bytes."""
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in (key, *flat(value))]
    if isinstance(state, list):
        return [leaf for value in state for leaf in flat(value)]
    return [state.numpy().tobytes() if isinstance(state, Tensor) else state]


def watched(**changes: Any) -> Recipe:
    return recipe(online_probe__lr=0.1, **changes)


def test_it_learns_stripes(data: PretrainData) -> None:
    changes: dict[str, Any] = {"optimizer__name": "adamw", "optimizer__lr": 0.003, "optimizer__lr_scaling": "none"}
    encoder = {"model": "vit", "models__vit__layers": 1, "models__vit__width": 12}
    result, _ = trained(ALONE, data, watched(views__augmentations=["flip"], **changes, **encoder, epochs=5))
    assert [row["epoch"] for row in result.validation] == [1, 2, 3, 4, 5]
    assert result.validation[-1]["probe_top1"] == result.metrics["val_probe_top1"] == 100.0


def test_its_accuracy_is_that_of_val_standardised_as_the_training_images_are(data: PretrainData) -> None:
    result, kept = trained(ALONE, data, watched())
    train, val = (
        representations(result.encoder, file, np.arange(len(file)), result.transform, 5, ALONE).double()
        for file in (data.train, data.val)
    )
    probe = last(kept)["probe"]
    rows = (val - train.mean(dim=0)) / (train.var(dim=0, correction=0) + 1e-5).sqrt()
    guesses = (rows @ probe["weight"].T.double() + probe["bias"]).argmax(dim=1)
    right = int((guesses.numpy() == data.val.labels).sum())
    assert 0 < right < 12
    assert result.validation[-1]["probe_top1"] == pytest.approx(100 * right / 12)


@pytest.mark.parametrize("changes", [{}, PIECES], ids=["whole", "in pieces with small views"])
def test_it_is_a_plain_loop(changes: dict[str, Any], data: PretrainData) -> None:
    """torch's layers and SGD on what each step gave, with the running statistics that torch's BatchNorm keeps."""
    recorded: list[tuple[Tensor, Tensor, float, Tensor]] = []
    step = OnlineProbe.step

    def recording(probe: OnlineProbe, result: StepResult, factor: float) -> Tensor:
        loss = step(probe, result, factor)
        recorded.append((result.outputs[0].detach().clone(), result.batch.labels.clone(), factor, loss))
        return loss

    with mock.patch.object(OnlineProbe, "step", recording):
        _, kept = trained(ALONE, data, watched(**changes))
    assert len(recorded) == 8
    norm, layer = nn.BatchNorm1d(recorded[0][0].shape[1], affine=False), nn.Linear(recorded[0][0].shape[1], 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    solver = torch.optim.SGD(layer.parameters(), momentum=0.9)
    for h, labels, factor, loss in recorded:
        assert len(h) == 8 * (3 if changes else 2)
        h, labels = h[:16], labels.repeat(2)  # two views of eight samples; the small ones come last
        solver.param_groups[0]["lr"] = 0.1 * factor
        solver.zero_grad()
        scores = layer(norm.eval()(h))
        expected = F.cross_entropy(scores[labels >= 0], labels[labels >= 0])
        expected.backward()
        solver.step()
        norm.train()(h)
        torch.testing.assert_close(loss, expected)
    assert [factor for _, _, factor, _ in recorded][:5] == [0.25, 0.5, 0.75, 1, 1]
    probe = last(kept)["probe"]
    for name, expected in {
        "weight": layer.weight, "bias": layer.bias, "mean": norm.running_mean, "variance": norm.running_var
    }.items():  # fmt: skip
        torch.testing.assert_close(probe[name], expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_batch_without_any_label_teaches_it_nothing(tmp_path: Path, data: PretrainData) -> None:
    source = without_labels(data.train, tmp_path / "source.beton", np.ones(34, dtype=bool))
    _, kept = trained(ALONE, PretrainData(source, data.train, data.val, data.info), watched(epochs=1))
    probe = last(kept)["probe"]
    assert not probe["weight"].any()
    assert not probe["bias"].any()


def test_a_step_never_waits_for_its_device() -> None:
    """Tensors of the device "meta" have no values to wait for: reading one raises."""
    nowhere = torch.device("meta")
    h, rows = torch.empty(16, 5, device=nowhere), torch.empty(8, dtype=torch.int64, device=nowhere)
    batch = Batch((torch.empty(16, 3, 8, 8, device=nowhere),), rows, rows, rows, 2, 8)
    probe = OnlineProbe(5, 2, 0.1, Session(rank=0, world_size=1, device=nowhere))
    loss = probe.step(StepResult(batch, h.sum(), (h,), dict, h.sum()), 1.0)
    assert loss.shape == ()
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def both(session: Session, data: PretrainData, changes: dict[str, Any]) -> list[tuple[list[Any], Any]]:
    """For runs with and without a probe: all that is kept of the last step but the probe, the state of torch's
    generator, and the curves but the probe's."""
    runs = []
    for chosen in (recipe(**changes), watched(**changes)):
        result, kept = trained(session, data, chosen)
        state = last(kept)
        state["course"]["validation"] = [row["knn_top1"] for row in state["course"]["validation"]]
        assert bool(state.pop("probe")) == (chosen.parameters.online_probe.lr is not None)
        assert ("probe_top1" in result.validation[0]) == (chosen.parameters.online_probe.lr is not None)
        runs.append((flat(state), torch.get_rng_state().tolist()))
    return runs


CHANGES = PIECES | {"optimizer__clip_grad_norm": 0.5, "methods__simclr__head__dropout": 0.3}


def test_the_encoder_and_all_else_have_the_bytes_of_a_run_without_it(data: PretrainData) -> None:
    without, with_probe = both(ALONE, data, CHANGES)
    assert with_probe == without


def test_on_ranks_too(data: PretrainData) -> None:
    for without, with_probe in on_ranks(2, both, data, {"epochs": 1, "optimizer__clip_grad_norm": 0.5}):
        assert with_probe == without


@pytest.mark.parametrize("step", [1, 3, 6])
def test_stopped_at_a_step_it_goes_on_to_the_same_bytes(step: int, data: PretrainData) -> None:
    whole, kept = trained(ALONE, data, watched())
    resumed, others = trained(ALONE, data, watched(), kept[step])
    assert min(others) == step + 1
    assert flat(last(others)["probe"]) == flat(last(kept)["probe"])
    assert resumed.validation == whole.validation


def messages(session: Session, data: PretrainData, chosen: Recipe) -> tuple[dict[str, Any], Any, list[list[int]]]:
    """The probe of a run, its curve, and the numbers in each message of each of its steps."""
    sent: list[list[int]] = []
    step, reduce = OnlineProbe.step, dist.all_reduce

    def counting(probe: OnlineProbe, result: StepResult, factor: float) -> Tensor:
        sent.append([])

        def all_reduce(tensor: Tensor) -> None:
            sent[-1].append(tensor.numel())
            reduce(tensor)

        with mock.patch.object(dist, "all_reduce", all_reduce), mock.patch.object(dist, "all_gather", pytest.fail):
            return step(probe, result, factor)

    with mock.patch.object(OnlineProbe, "step", counting):
        result, kept = trained(session, data, chosen)
    return last(kept)["probe"], result.validation, sent


def test_two_ranks_teach_it_what_one_process_does_in_one_message_a_step(data: PretrainData) -> None:
    chosen = watched(epochs=1, optimizer__name="sgd", optimizer__lr=0.05, **PIECES)
    expected, curve, _ = messages(ALONE, data, chosen)
    classes, dimension = expected["weight"].shape
    for probe, found, sent in on_ranks(2, messages, data, chosen):
        assert sent == [[classes * dimension + classes + 2 + 2 * dimension]] * 4
        assert found == curve
        for name in ("weight", "bias", "mean", "variance"):
            torch.testing.assert_close(probe[name], expected[name], rtol=2e-3, atol=2e-4)


def resumed_on_ranks(session: Session, data: PretrainData, chosen: Recipe) -> bool:
    whole, kept = trained(session, data, chosen)
    resumed, others = trained(session, data, chosen, kept[3])
    return flat(last(others)["probe"]) == flat(last(kept)["probe"]) and resumed.validation == whole.validation


def test_ranks_go_on_to_the_same_bytes(data: PretrainData) -> None:
    assert on_ranks(2, resumed_on_ranks, data, watched()) == [True] * 2


def test_early_stopping_watches_it(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([(80.0, 50.0), (70.0, 60.0), (90.0, 55.0), (95.0, 60.0)])
    monkeypatch.setattr(
        Trainer, "validate", lambda _: dict(zip(("knn_top1", "probe_top1"), next(accuracies), strict=True))
    )
    chosen = watched(epochs=9, early_stopping__patience=2, early_stopping__watch="probe_top1")
    metrics = trained(ALONE, data, chosen)[0].metrics
    assert metrics["stopped"] == "no gain in 2 validations"
    assert (metrics["kept_epoch"], metrics["epochs"]) == (2, 4)
    assert (metrics["val_knn_top1"], metrics["val_probe_top1"]) == (70.0, 60.0)
