"""Pretraining as a whole, on a few made-up images: what it returns, refuses and keeps, and that ranks do not matter."""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from benchmarks.fake_memory import CUDA, GIB, counted
from torch import Tensor

from simclr import presets
from simclr.core.errors import UserError
from simclr.data import beton, loader, sampling
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.data.converted import DatasetInfo
from simclr.data.loader import Crops
from simclr.distributed.session import Session, open_session
from simclr.features import encode, knn
from simclr.learning import placement, projection_head
from simclr.losses import nt_xent
from simclr.models import resnet
from simclr.tracking.tensorboard import Board
from simclr.training import pretrain, validation
from simclr.training import recipe as recipes
from simclr.training.pretrain import PretrainResult
from simclr.training.pretrain_params import in_bf16
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext
from simclr.training.trainer import Trainer
from simclr.views.compose import Views
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import recipe

DIGESTS = {"train": "0" * 64, "val": "1" * 64}


def striped(path: Path, count: int, seed: int) -> Beton:
    """Images of two classes: stripes lying or standing, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, 8, 8, 3), dtype=np.uint8)
    images[labels == 0, ::2] += 120
    images[labels == 1, :, ::2] += 120
    beton.write(path, (StoredImage(RAW, 8, 8, image.tobytes()) for image in images), labels, 192)
    return beton.read(path)


def stripes(folder: Path, count: int) -> PretrainData:
    """`count` images to train on, written into `folder`, and 12 of val."""
    train, val = striped(folder / "train.beton", count, 0), striped(folder / "val.beton", 12, 1)
    return PretrainData(train, train, val, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS))


@pytest.fixture
def data(tmp_path: Path) -> PretrainData:
    return stripes(tmp_path, 32)


def run(data: PretrainData, **changes: Any) -> PretrainResult:
    return pretrain.pretrain(recipe(**changes), data, ALONE, RunContext())


def state(result: PretrainResult) -> dict[str, Tensor]:
    return result.encoder.state_dict()


def test_what_it_returns(data: PretrainData) -> None:
    result = run(data)
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert [row["epoch"] for row in result.validation] == [1, 2]
    assert result.metrics["stopped"] == "all epochs done"
    assert result.metrics["kept_epoch"] == result.metrics["epochs"] == 2
    assert not result.encoder.training
    assert not any(weight.requires_grad for weight in result.encoder.parameters())
    assert result.transform.mean == [0.4] * 3
    assert [images.shape for images in result.views] == [(32, 2, 8, 8, 3)]


def test_it_learns(data: PretrainData) -> None:
    """From near chance, the log of 14 negatives and a positive, the loss falls."""
    result = run(data, epochs=30, optimizer__name="adamw", optimizer__lr=0.003, optimizer__lr_scaling="none")
    losses = [row["loss"] for row in result.history]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.2


@pytest.mark.parametrize("method", ["simclr", "classifier"])
def test_it_learns_from_three_views(method: str, data: PretrainData) -> None:
    changes = {"optimizer__name": "adamw", "optimizer__lr": 0.003, "optimizer__lr_scaling": "none"}
    losses = [row["loss"] for row in run(data, epochs=30, method=method, views__count=3, **changes).history]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1


@pytest.fixture
def double() -> Iterator[None]:
    """Weights, and what becomes of the views, in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_it_is_the_papers_algorithm(data: PretrainData) -> None:
    """Chen et al. 2020, algorithm 1, with plain SGD: a dense matrix of similarities, and an update by hand."""
    chosen = recipe(
        optimizer__name="sgd", optimizer__lr=0.02, optimizer__lr_scaling="none", optimizer__weight_decay=0.1,
        optimizer__warmup_epochs=1,
    )  # fmt: skip
    parameters, resolution = chosen.parameters, chosen.parameters.views.resolution
    torch.manual_seed(parameters.seed)
    f = resnet.build(chosen.model.parameters, resolution)
    g = projection_head.build(chosen.method.parameters.head, f.dimension)
    weights = [weight for weight in (*f.parameters(), *g.parameters()) if weight.requires_grad]
    velocities = [torch.zeros_like(weight) for weight in weights]
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (data.info.mean, data.info.std))
    size, count, steps = parameters.batch_size, len(data.source), 8
    for step in range(steps):
        epoch = step // (count // size) + 1
        samples = sampling.shuffled_batches(count, size, parameters.seed, epoch, drop_last=True)[step % (count // size)]
        heights, widths = data.source.heights[samples], data.source.widths[samples]
        made = Views(chosen.augmentations, 2, resolution, parameters.seed)
        boxes, drawn = made.draw(samples, epoch, heights, widths)
        rows = made.rows(drawn, ALONE.device)
        loaded = loader.load(data.source, samples, [Crops(boxes, resolution)], ALONE.device, rows)
        images = (made.augment(loader.crops(loaded, 0, resolution), loaded) - mean) / std
        z = torch.nn.functional.normalize(g(f(images), torch.zeros(2 * size, dtype=torch.int64)))
        similarities = z @ z.T / chosen.loss.parameters.temperature
        others = similarities.masked_fill(torch.eye(2 * size, dtype=torch.bool), -torch.inf)
        positives = torch.stack([similarities[row, (row + size) % (2 * size)] for row in range(2 * size)])
        loss = (others.logsumexp(dim=1) - positives).mean()
        gradients = torch.autograd.grad(loss, weights)
        warmup = steps // 2
        factor = (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * (step - warmup) / warmup)) / 2
        with torch.no_grad():
            for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
                decayed = gradient + 0.1 * weight if weight.ndim > 1 else gradient
                velocity.mul_(0.9).add_(decayed)
                weight -= 0.02 * factor * velocity
    found = pretrain.pretrain(chosen, data, ALONE, RunContext())
    assert found.history[-1]["epoch"] == 2
    for name, tensor in f.state_dict().items():
        torch.testing.assert_close(state(found)[name], tensor, rtol=1e-6, atol=1e-9)


def test_in_pieces_without_batch_norm_it_learns_the_same(data: PretrainData) -> None:
    changes: dict[str, Any] = {
        "model": "vit", "models__vit__layers": 1, "models__vit__width": 12, "methods__simclr__head__batch_norm": False,
        "optimizer__name": "sgd", "optimizer__lr": 0.1, "methods__simclr__head__dropout": 0.3,
    }  # fmt: skip
    whole, pieces = run(data, **changes), run(data, **changes, piece_size=2)
    for ours, theirs in zip(pieces.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    for name, value in state(whole).items():
        torch.testing.assert_close(state(pieces)[name], value, rtol=1e-4, atol=1e-5)


def test_the_same_run_twice_is_the_same_run(data: PretrainData) -> None:
    first, second = (
        run(data, views__augmentations=["crop", "jitter", "blur"], methods__simclr__head__dropout=0.2),
        run(data, views__augmentations=["crop", "jitter", "blur"], methods__simclr__head__dropout=0.2),
    )
    assert first.history == second.history
    assert all(torch.equal(value, state(second)[name]) for name, value in state(first).items())
    other = run(data, seed=1)
    assert any(not torch.equal(value, state(other)[name]) for name, value in state(first).items())


def on_rank(session: Session, data: PretrainData, chosen: Recipe) -> tuple[Any, dict[str, Tensor]]:
    result = pretrain.pretrain(chosen, data, session, RunContext())
    return (result.history, result.validation), result.encoder.state_dict()


@pytest.mark.parametrize(
    ("world", "others"),
    [
        (2, {}),
        (4, {}),
        (2, {"compile": True}),
        (2, {"models__resnet__norm": "group", "methods__simclr__head__batch_norm": False}),
        (2, {"piece_size": 4, "views__small__count": 1}),
    ],
    ids=["2", "4", "2 compiled", "2 without BatchNorm", "2 in pieces with small views"],
)
def test_ranks_train_as_one_process_does(world: int, others: dict[str, Any], data: PretrainData) -> None:
    """1 x 8, 2 x 4 and 4 x 2: the same losses, validation and encoder, BatchNorm and all."""
    changes: dict[str, Any] = {
        "optimizer__name": "sgd", "optimizer__lr": 0.1, "optimizer__clip_grad_norm": 0.5,
        "penalty__representations__l2": 0.1, "penalty__weights__l2": 0.01, "penalty__weights__smooth_l1": 0.01,
        "methods__simclr__head__dropout": 0.3,
    }  # fmt: skip
    whole = pretrain.pretrain(recipe(**changes | others | {"compile": False}), data, ALONE, RunContext())
    for (history, rows), encoder in on_ranks(world, on_rank, data, recipe(**changes | others)):
        for ours, theirs in zip(history, whole.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
        assert [row["knn_top1"] for row in rows] == [row["knn_top1"] for row in whole.validation]
        for name, value in state(whole).items():
            torch.testing.assert_close(encoder[name], value, rtol=2e-3, atol=2e-4)


def gradients(session: Session, data: PretrainData, chosen: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and averaged gradients of the first step, in float64."""
    torch.set_default_dtype(torch.float64)
    trainer = Trainer(chosen, data, session, RunContext())
    torch.set_default_dtype(torch.float32)
    own = np.array_split(np.arange(8), session.world_size)[session.rank]
    batch = trainer.stream.batch(trainer.stream.load(own, epoch=1), 8)
    model = trainer.learner.model
    images = (trainer.transform.normalise(batch.images[0].double()),)
    loss = trainer.method.loss(model(images, batch.keys), batch, session)
    loss.backward()
    found = {
        name.removeprefix("module."): weight.grad
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return session.mean(loss), found


def test_two_ranks_have_the_loss_and_gradients_of_one_process(data: PretrainData) -> None:
    chosen = recipe(methods__simclr__head__dropout=0.3)
    loss, expected = gradients(ALONE, data, chosen)
    for own_loss, found in on_ranks(2, gradients, data, chosen):
        torch.testing.assert_close(own_loss, loss, rtol=1e-9, atol=0)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)


def test_early_stopping_keeps_the_best_encoder_with_its_head_and_says_why(
    data: PretrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([50.0, 80.0, 70.0, 80.0])
    states = []

    def validate(trainer: Any) -> dict[str, float]:
        states.append({name: value.clone() for name, value in trainer.method.state_dict().items()})
        return {"knn_top1": next(accuracies)}

    monkeypatch.setattr(Trainer, "validate", validate)
    result = run(data, epochs=9, early_stopping__patience=2)
    assert result.metrics["stopped"] == "no gain in 2 validations"
    assert result.metrics["epochs"] == 4
    assert result.metrics["kept_epoch"] == 2
    assert result.metrics["val_knn_top1"] == 80.0
    assert result.head is not None
    for part, network in (("encoder", result.encoder), ("head", result.head)):
        kept = network.state_dict()
        assert all(torch.equal(value, states[1][f"{part}.{name}"]) for name, value in kept.items())
        assert any(not torch.equal(value, states[3][f"{part}.{name}"]) for name, value in kept.items())


def test_without_early_stopping_the_last_encoder_is_kept(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([80.0, 50.0])
    monkeypatch.setattr(Trainer, "validate", lambda _: {"knn_top1": next(accuracies)})
    result = run(data)
    assert result.metrics["kept_epoch"] == 2
    assert result.metrics["val_knn_top1"] == 50.0


def on_rank_with_its_own_accuracies(session: Session, data: PretrainData, chosen: Recipe) -> tuple[Any, Any]:
    own = [80.0, 80.02 if session.rank == 0 else 80.0, 70.0, 70.0, 70.0, 70.0]
    with mock.patch("simclr.training.validation.top1", side_effect=[{"knn_top1": value} for value in own]):
        result = pretrain.pretrain(chosen, data, session, RunContext())
    return result.validation, result.metrics


def test_ranks_stop_together_by_the_accuracies_of_the_first(data: PretrainData) -> None:
    """Where sums have no fixed order, as on GPUs, an image of val may fall to another class on another rank."""
    chosen = recipe(epochs=6, early_stopping__patience=2)
    first, second = on_ranks(2, on_rank_with_its_own_accuracies, data, chosen)
    assert first == second
    assert (first[1]["kept_epoch"], first[1]["epochs"], first[1]["val_knn_top1"]) == (2, 4, 80.02)


@pytest.mark.parametrize(("precision", "tf32"), [("auto", True), ("bf16", True), ("fp32", False)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_convolutions_are_those_that_the_parameters_ask_for(precision: str, tf32: bool, deterministic: bool) -> None:
    before = torch.backends.cudnn.allow_tf32
    with pretrain.open_session_for(recipe(precision=precision, deterministic=deterministic).parameters):
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.backends.cudnn.benchmark is not deterministic
        assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.allow_tf32 is before


def test_validation_every_k_epochs_and_after_the_last(data: PretrainData) -> None:
    result = run(data, epochs=5, validation__every_epochs=2)
    assert [row["epoch"] for row in result.validation] == [2, 4, 5]


@pytest.mark.parametrize(("preset", "world"), [("imagenet", 1), ("imagenet", 8), ("cifar10", 1)])
def test_on_a_gpu_a_validation_takes_few_gigabytes_whatever_the_batch(
    preset: str, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted beside the weights, in float32, with two batches of each split; the features are few beside them."""
    chosen = recipes.checked(presets.compose(preset), preset)
    size, count = chosen.parameters.views.resolution, 1024 * world

    class Split:
        heights, widths, labels = np.full(count, size), np.full(count, size), np.zeros(count, np.int64)

        def __len__(self) -> int:
            return count

    split: Any = Split()
    read = SimpleNamespace(
        load=lambda _, samples, crops, device: torch.empty(len(samples), 3, size, size, dtype=torch.uint8),
        prefetch_batches=lambda device: 1,
        crops=lambda pixels, k, size: pixels.float() / 255,
    )
    monkeypatch.setattr(encode, "loader", read)
    monkeypatch.setattr(knn, "accuracy", lambda *_: 0.5)  # a number, which no counted tensor has
    monkeypatch.setattr(validation, "is_finite", lambda _: True)
    monkeypatch.setattr(Session, "gather_rows", lambda session, rows: torch.cat([rows] * session.world_size))
    monkeypatch.setattr(Session, "broadcast", lambda _, value: value)
    monkeypatch.setattr(Trainer, "_pause", lambda _: None)
    monkeypatch.setattr(placement, "place_model", lambda model, *_: model)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))
    with counted() as peak, CUDA:
        session = Session(rank=0, world_size=world, device=CUDA)
        data = PretrainData(split, split, split, DatasetInfo(["a", "b"], [0.4] * 3, [0.3] * 3, DIGESTS))
        trainer = Trainer(chosen, data, session, RunContext())
        assert trainer.validate() == {"knn_top1": 50.0}
    assert peak.gpu < 8 * GIB


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_every_optimizer_trains(name: str, data: PretrainData) -> None:
    assert run(data, epochs=1, optimizer__name=name).metrics["epochs"] == 1


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.02), ("lars", 20.0)])
def test_l2_of_the_weights_is_weight_decay(name: str, lr: float, data: PretrainData) -> None:
    changes = {"optimizer__name": name, "optimizer__lr": lr, "optimizer__lr_scaling": "none"}
    decayed, penalised, neither = (
        state(run(data, optimizer__weight_decay=decay, penalty__weights__l2=l2, **changes))
        for decay, l2 in ((0.1, 0.0), (0.0, 0.1), (0.0, 0.0))
    )
    for key, value in decayed.items():
        torch.testing.assert_close(penalised[key], value, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(neither["conv1.weight"], decayed["conv1.weight"], rtol=1e-3)


@pytest.mark.parametrize(("kind", "most"), [("representations", 20.0), ("weights", 0.5)])
@pytest.mark.parametrize("name", ["l2", "smooth_l1"])
def test_a_penalty_makes_small_what_it_is_on(kind: str, most: float, name: str, data: PretrainData) -> None:
    images = torch.rand(8, 3, 8, 8)

    def sizes(strength: float) -> dict[str, float]:
        changes = {"optimizer__name": "sgd", "optimizer__lr": 0.1, "optimizer__lr_scaling": "none"}
        encoder = run(data, **changes, **{f"penalty__{kind}__{name}": strength}).encoder
        h = encoder.train()(images)
        return {"representations": h.norm().item(), "weights": encoder.conv1.weight.norm().item()}

    assert sizes(most)[kind] < 0.9 * sizes(0.0)[kind]


def test_ranks_that_share_a_gpu_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Session(rank=0, world_size=2, device=torch.device("cuda"))
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "gloo")
    pretrain.check_session(recipe(compile=False).parameters, shared)
    with pytest.raises(UserError, match=r"pretrain.compile = true is not allowed; .* where processes share a GPU"):
        pretrain.check_session(recipe(compile=True).parameters, shared)
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "nccl")
    pretrain.check_session(recipe(compile=True).parameters, shared)


def test_bf16_runs_on_a_cpu_at_native_speed_and_is_refused_where_it_would_take_ten_times_as_long(
    data: PretrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r'\.precision = "bf16" is not allowed; .*\(processor.instructions: native lifts that\)'
    ):
        run(data, epochs=1, precision="bf16")
    monkeypatch.setenv("SIMCLR_CPU", "native")
    assert run(data, epochs=1, precision="bf16").metrics["epochs"] == 1


@pytest.mark.parametrize(("name", "value"), [("SIMCLR_CPU", "native"), ("SIMCLR_THREADS", "2")])
def test_what_changes_the_last_bits_is_of_the_identity(
    name: str, value: str, data: PretrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pretrain.identity(recipe(), data, ALONE)
    monkeypatch.setenv(name, value)
    assert pretrain.identity(recipe(), data, ALONE).difference(before).startswith("other platform")


def test_auto_is_bf16_where_a_gpu_has_it(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a checkpoint of the one precision is not taken up in the other."""
    on_gpu = Session(rank=0, world_size=1, device=torch.device("cuda"))
    identities = []
    for has_it in (False, True):
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda _, has_it=has_it: (8 if has_it else 7, 5))
        for precision, expected in (("auto", has_it), ("bf16", True), ("fp32", False)):
            assert in_bf16(recipe(precision=precision).parameters, on_gpu.device) is expected
        identities.append(pretrain.identity(recipe(), data, on_gpu))
    assert not in_bf16(recipe().parameters, ALONE.device)
    assert identities[0].difference(identities[1]).startswith("other platform (bf16 ")


def on_rank_natively(session: Session, *arguments: Any) -> Any:
    with mock.patch.dict(os.environ, SIMCLR_CPU="native"):
        return on_rank(session, *arguments)


def test_ranks_train_in_bf16(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an epoch; later its rounding, 2^-8, has grown."""
    monkeypatch.setenv("SIMCLR_CPU", "native")
    chosen = recipe(epochs=1, precision="bf16", optimizer__name="sgd", optimizer__lr=0.1)
    whole = pretrain.pretrain(chosen, data, ALONE, RunContext())
    for (history, _), _ in on_ranks(2, on_rank_natively, data, chosen):
        assert history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=0.02)


def test_gradients_are_cut_to_the_norm_that_is_allowed_or_left_alone(data: PretrainData) -> None:
    for most, factor in ((None, 1.0), (6.5, 0.5), (20.0, 1.0)):
        trainer = Trainer(recipe(optimizer__clip_grad_norm=most), data, ALONE, RunContext())
        weights = [weight for weight in trainer.learner.model.parameters() if weight.requires_grad][:2]
        weights[0].grad, weights[1].grad = (torch.zeros_like(weight) for weight in weights)
        for weight, value in zip(weights, (5.0, 12.0), strict=True):
            weight.grad[(0,) * weight.ndim] = value
        assert trainer.learner._clip_gradient().item() == pytest.approx(13.0)
        assert weights[1].grad.sum().item() == pytest.approx(12 * factor, rel=1e-5)


class Speeds(Board):
    """Keeps what a run tells of its speed."""

    def __init__(self) -> None:
        super().__init__(None)
        self.found: list[float] = []

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.found += [value for name, value in values.items() if name == "speed/samples_per_second"]


def test_speed_counts_what_the_device_has_not_done_yet(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check for gradients that are not finite waits for the device, here for half a second."""
    check, board = Trainer._check, Speeds()

    def slow(trainer: Any) -> None:
        time.sleep(0.5)
        check(trainer)

    monkeypatch.setattr(Trainer, "_check", slow)
    monkeypatch.setattr(Trainer, "_log", lambda *_: None)
    pretrain.pretrain(recipe(), data, ALONE, RunContext(board=board))
    assert len(board.found) == 2
    assert all(speed <= 32 / 0.5 for speed in board.found)


def test_in_bf16_the_projections_are_still_single(data: PretrainData) -> None:
    """The head alone, on what the encoder gives in bf16."""
    trainer = Trainer(recipe(precision="bf16"), data, ALONE, RunContext())
    images, keys = torch.rand(8, 3, 8, 8), torch.arange(8)
    h, z = trainer.learner.forward((images,), keys)
    assert h.dtype == torch.bfloat16
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, trainer.method.head(h.float(), keys), rtol=1e-4, atol=1e-4)


def test_every_operation_has_a_deterministic_form_on_a_cpu(data: PretrainData) -> None:
    with open_session(deterministic=True) as session:
        result = pretrain.pretrain(recipe(models__resnet__stem="imagenet"), data, session, RunContext())
    assert result.metrics["epochs"] == 2


def test_a_batch_larger_than_the_data_names_both(data: PretrainData) -> None:
    with pytest.raises(
        UserError, match=r"pretrain.batch_size = 64 is not allowed; it takes at most 32, the images of train"
    ):
        run(data, batch_size=64)


def test_a_batch_that_does_not_divide_names_the_processes(data: PretrainData) -> None:
    three = dataclasses.replace(ALONE, world_size=3)
    with pytest.raises(UserError, match="batch_size = 8 is not allowed; it takes a multiple of the 3 processes"):
        pretrain.pretrain(recipe(), data, three, RunContext())


def test_a_loss_that_is_not_finite_ends_the_run(data: PretrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nt_xent, "loss", lambda z, *_: z.sum() * torch.nan)
    with pytest.raises(UserError, match=r"not finite at step 0 \(epoch 1\), at a learning rate of .*is none; lower"):
        run(data)


@pytest.mark.parametrize("factor", [torch.nan, 1e30])
@pytest.mark.parametrize(("split", "labelled"), [("train", True), ("val", True), ("val", False)])
def test_representations_that_are_not_finite_end_the_run(
    split: str, labelled: bool, factor: float, data: PretrainData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where BatchNorm's statistics overflow in the last steps, though every gradient was finite."""
    make = validation.representations

    def overflowing(encoder: Any, beton: Beton, *others: Any, **options: Any) -> Tensor:
        h = make(encoder, beton, *others, **options)
        return h * factor if beton is getattr(data, split) else h

    monkeypatch.setattr(validation, "representations", overflowing)
    with pytest.raises(UserError, match=r"^the encoder's representations are not finite, .* \(lower "):
        run(data if labelled else dataclasses.replace(data, info=dataclasses.replace(data.info, classes=[])))
