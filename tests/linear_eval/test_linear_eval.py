"""Linear evaluation: what is chosen and on what, both forms against dumb references, ranks against one process."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tv
from benchmarks.fake_memory import CUDA, counted
from sklearn import metrics
from torch import Tensor

from simclr.core.errors import UserError
from simclr.core.interval import wilson
from simclr.core.randomness import permutation
from simclr.data import beton
from simclr.data.beton import Beton
from simclr.data.sampling import windowed_permutation
from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import logistic_regression
from simclr.features.encode import Features
from simclr.features.eval_transform import EvalTransform
from simclr.linear_eval import augmented_probe, baselines, cached_probe
from simclr.linear_eval.cached_probe import ProbeResult
from simclr.linear_eval.confusion import confusion
from simclr.linear_eval.linear_eval_params import AugmentedParams, CachedParams, LinearEvalParams, check
from simclr.linear_eval.scores import balanced_scores, by_class, topk_accuracy
from simclr.methods import classifier
from simclr.models.resnet import Encoder
from tests.helpers.augmentations import views
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE, on_ranks

TRANSFORM = EvalTransform(size=8, crop_share=1.0, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
CLASSES = 3
COUNT = 9
"""Training images; with batches of 4 the last one holds a single image, so that of two ranks one gets none."""


def parameters(refit: bool = False, **augmented: Any) -> LinearEvalParams:
    chosen = {
        "epochs": 3, "batch_size": 4, "shuffle_window": None, "lr": [20.0], "momentum": 0.9, "weight_decay": 0.1,
        "crop_scale": [0.3, 1.0], "flip": 0.5,
    }  # fmt: skip
    return LinearEvalParams(
        seed=3,
        refit=refit,
        cached=CachedParams(l2=[1.0, 0.01, 1e-4], max_iterations=100, class_weights="none"),
        augmented=AugmentedParams(**(chosen | augmented)),
    )


def network(seed: int = 0, zero_init: bool = False) -> Encoder:
    torch.manual_seed(seed)
    encoder = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=zero_init)
    encoder(torch.randn(16, 3, 8, 8))  # so that the running statistics are not those of the batch
    return encoder


def pixels(count: int, seed: int, size: int = 8) -> Tensor:
    return torch.from_numpy(noise(count, size, seed)).permute(0, 3, 1, 2) / 255


def normalised(images: Tensor) -> Tensor:
    mean, std = torch.tensor(TRANSFORM.mean)[:, None, None], torch.tensor(TRANSFORM.std)[:, None, None]
    return (images - mean) / std


@torch.no_grad()
def features(seed: int = 0) -> dict[str, Features]:
    """The network's features of noise."""
    counts = {"train": COUNT, "val": 12, "test": 15}
    return {
        name: Features(network().eval()(normalised(pixels(count, number))), labels(count, seed + number), count)
        for number, (name, count) in enumerate(counts.items())
    }


def labels(count: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(count) % CLASSES))


@pytest.fixture
def train(tmp_path: Path) -> Beton:
    return stored(tmp_path / "train.beton", noise(COUNT, 8, seed=0), labels(COUNT, 0).numpy())


def through(train: Beton, found: dict[str, Features], session: Session = ALONE, **augmented: Any) -> ProbeResult:
    return augmented_probe.probe_augmented(
        parameters(**augmented), network(), TRANSFORM, {"train": train}, found, session, CLASSES
    )


# --- cached features


def test_the_cached_form_is_the_probe_chosen_on_val() -> None:
    found = features()
    verdict = cached_probe.probe_features(parameters().cached, found, CLASSES, ALONE)
    train, val = found["train"], found["val"]
    expected, strength = logistic_regression.select(train, val, CLASSES, [1.0, 0.01, 1e-4], 100, ALONE)
    assert verdict.hyperparameter == strength
    assert verdict.val_accuracy == pytest.approx(metrics.accuracy_score(val.labels, expected(val.h).argmax(dim=1)))
    torch.testing.assert_close(verdict.scores, expected(found["test"].h))


def test_a_refit_is_on_train_and_val_by_what_val_chose() -> None:
    found = features()
    before, verdict = (
        cached_probe.probe_features(parameters().cached, found, CLASSES, ALONE, refit=refit) for refit in (False, True)
    )
    assert (verdict.hyperparameter, verdict.val_accuracy) == (before.hyperparameter, before.val_accuracy)
    both = Features(
        torch.cat([found["train"].h, found["val"].h]), torch.cat([found["train"].labels, found["val"].labels]), 21
    )
    expected = logistic_regression.fit(both, CLASSES, verdict.hyperparameter, 100, ALONE)
    torch.testing.assert_close(verdict.scores, expected(found["test"].h))
    assert not torch.allclose(verdict.scores, before.scores, atol=0.01)


class HundredSteps:
    """What L-BFGS asks for and holds after 100 steps, without its decisions: fake tensors have no values for them."""

    def __init__(self, weights: list[Tensor], **_: Any) -> None:
        self.weights = weights

    def step(self, objective: Callable[[], Tensor]) -> None:
        history = [torch.empty_like(weight) for weight in self.weights for _ in range(2 * 100)]
        objective()
        del history


@pytest.mark.parametrize("refit", [False, True])
def test_imagenet_fits_into_40_gb_of_a_gpu(refit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe as a whole, of raw pixels, the widest of the inputs, and 1,000 classes."""
    monkeypatch.setattr(torch.optim, "LBFGS", HundredSteps)
    monkeypatch.setattr(Tensor, "item", lambda _: 0.0)
    width, classes = 3 * 32 * 32, 1000
    with counted() as peak:
        splits = {
            name: Features(
                torch.empty(count, width, device=CUDA), torch.zeros(count, dtype=torch.int64, device=CUDA), count
            )
            for name, count in (("train", 1_268_355), ("val", 12_812), ("test", 50_000))
        }
        session = Session(rank=0, world_size=1, device=CUDA)
        result = cached_probe.probe_features(parameters().cached, splits, classes, session, refit=refit)
    assert result.scores.shape == (50_000, classes)
    assert 2 * 4 * 1_268_355 * width < peak.gpu < 40e9  # the features, and their standardised copy
    assert peak.host < 1e9


def test_so_is_that_of_the_augmented_form(train: Beton, tmp_path: Path) -> None:
    found = features()
    val = stored(tmp_path / "val.beton", noise(12, 8, seed=1), found["val"].labels.numpy())
    rates = [1e-3, 20.0]
    before = through(train, found, lr=rates)
    verdict = augmented_probe.probe_augmented(
        parameters(refit=True, lr=rates), network(), TRANSFORM, {"train": train, "val": val}, found, ALONE, CLASSES
    )
    assert (verdict.hyperparameter, verdict.val_accuracy) == (before.hyperparameter, before.val_accuracy)
    images = np.concatenate([noise(COUNT, 8, seed=0), noise(12, 8, seed=1)])
    whole = stored(tmp_path / "whole.beton", images, np.concatenate([train.labels, val.labels]))
    assert torch.equal(verdict.scores, through(whole, found, lr=[verdict.hyperparameter]).scores)
    assert not torch.equal(verdict.scores, before.scores)


def test_a_rate_that_diverges_in_the_refit_alone_is_refused(train: Beton, tmp_path: Path) -> None:
    """A decay that multiplies the weights in each step: some 1e30 after the steps on train, no number after twice."""
    found = features()
    val = stored(tmp_path / "val.beton", noise(12, 8, seed=1), found["val"].labels.numpy())
    diverging = {"momentum": 0.0, "weight_decay": 3e4}
    assert through(train, found, **diverging).scores.isfinite().all()
    with pytest.raises(
        UserError, match=r"^linear_eval\.augmented\.lr: 20, chosen on val, diverges on train and val; lower"
    ):
        augmented_probe.probe_augmented(
            parameters(refit=True, **diverging),
            network(),
            TRANSFORM,
            {"train": train, "val": val},
            found,
            ALONE,
            CLASSES,
        )


def test_the_weights_of_classes_are_those_of_params_yaml() -> None:
    found = features()
    found["train"].labels[:] = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])
    settings = dataclasses.replace(parameters().cached, class_weights="balanced")
    verdict, without = (
        cached_probe.probe_features(chosen, found, CLASSES, ALONE) for chosen in (settings, parameters().cached)
    )
    expected, _ = logistic_regression.select(
        found["train"], found["val"], CLASSES, [1.0, 0.01, 1e-4], 100, ALONE, balanced=True
    )
    torch.testing.assert_close(verdict.scores, expected(found["test"].h))
    assert not torch.allclose(verdict.scores, without.scores, atol=0.01)


# --- the test split decides on nothing


@pytest.mark.parametrize("form", ["cached", "augmented"])
def test_the_test_split_influences_no_choice(train: Beton, form: str) -> None:
    """Not by its labels, whether they praise the boldest candidate or the most timid, and not by its features."""

    def judged(test: Features) -> ProbeResult:
        splits = {**found, "test": test}
        if form == "cached":
            return cached_probe.probe_features(parameters().cached, splits, CLASSES, ALONE)
        return through(train, splits, lr=[0.01, 1.0, 20.0])

    found = features()
    usual = judged(found["test"])
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(usual.scores)))
    for truth in (usual.scores.argmax(dim=1), usual.scores.argmin(dim=1)):
        again = judged(Features(found["test"].h[order], truth[order], len(truth)))
        assert again.hyperparameter == usual.hyperparameter
        assert again.val_accuracy == usual.val_accuracy
        torch.testing.assert_close(again.scores, usual.scores[order])


# --- through the encoder


def by_hand(train: Beton, chosen: LinearEvalParams) -> tuple[Tensor, Tensor]:
    """The weights and the bias of a linear layer trained with one learning rate, one image at a time."""
    encoder, settings = network().eval(), chosen.augmented
    made = views(
        8, ["crop", "flip"], 1, chosen.seed, crop__scale=settings.crop_scale, crop__ratio=[3 / 4, 4 / 3],
        flip__probability=settings.flip,
    )  # fmt: skip
    images = pixels(COUNT, 0)
    weights, bias = torch.zeros(encoder.dimension, CLASSES), torch.zeros(CLASSES)
    weights_velocity, bias_velocity = torch.zeros_like(weights), torch.zeros_like(bias)
    step, steps = 0, settings.epochs * int(np.ceil(COUNT / settings.batch_size))
    for epoch in range(1, settings.epochs + 1):
        window = settings.shuffle_window
        order = (
            windowed_permutation(COUNT, window, chosen.seed, epoch)
            if window
            else permutation(COUNT, chosen.seed, epoch)
        )
        for start in range(0, COUNT, settings.batch_size):
            batch = order[start : start + settings.batch_size]
            weights_gradient, bias_gradient = settings.weight_decay * weights, torch.zeros(CLASSES)
            for sample in batch:
                sizes = np.array([8])
                boxes, _ = made.draw(np.array([sample]), epoch, sizes, sizes)
                top, left, height, width = boxes[0, 0].tolist()
                image = tv.resized_crop(images[sample], top, left, height, abs(width), [8, 8], antialias=True)
                image = image.flip(-1) if width < 0 else image
                with torch.no_grad():
                    h = encoder(normalised(image)[None])[0]
                error = (h @ weights + bias).softmax(dim=0) - F.one_hot(torch.tensor(train.labels[sample]), CLASSES)
                weights_gradient = weights_gradient + h[:, None] * error / len(batch)
                bias_gradient = bias_gradient + error / len(batch)
            lr = settings.lr[0] * settings.batch_size / 256 * 0.5 * (1 + np.cos(np.pi * step / steps))
            weights_velocity = settings.momentum * weights_velocity + weights_gradient
            bias_velocity = settings.momentum * bias_velocity + bias_gradient
            weights = weights - lr * (weights_gradient + settings.momentum * weights_velocity)  # Nesterov
            bias = bias - lr * (bias_gradient + settings.momentum * bias_velocity)
            step += 1
    return weights, bias


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"shuffle_window": 5}])
def test_the_augmented_form_by_hand(train: Beton, changes: dict[str, Any]) -> None:
    found = features()
    verdict = through(train, found, **changes)
    weights, bias = by_hand(train, parameters(**changes))
    expected, on_val = (found[name].h @ weights + bias for name in ("test", "val"))
    assert expected.std() > 0.05
    torch.testing.assert_close(verdict.scores, expected, rtol=1e-3, atol=1e-4)
    assert verdict.hyperparameter == 20.0
    assert verdict.val_accuracy == pytest.approx(metrics.accuracy_score(found["val"].labels, on_val.argmax(dim=1)))


def on_rank(session: Session, path: Path) -> list[ProbeResult]:
    """Both forms, on this rank's share of the features."""
    own = {
        name: Features(*(rows[shares.own(whole.count, session)] for rows in (whole.h, whole.labels)), count=whole.count)
        for name, whole in features().items()
    }
    return [
        through(beton.read(path), own, session, lr=[1.0, 20.0]),
        cached_probe.probe_features(parameters().cached, own, CLASSES, session),
    ]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_learn_what_one_process_learns(train: Beton, world: int) -> None:
    expected = on_rank(ALONE, train.path)
    for verdicts in on_ranks(world, on_rank, train.path):
        for verdict, alone in zip(verdicts, expected, strict=True):
            agree(verdict, alone)


def agree(verdict: ProbeResult, alone: ProbeResult) -> None:
    assert (verdict.hyperparameter, verdict.val_accuracy) == (alone.hyperparameter, alone.val_accuracy)
    # a sum in another order may end L-BFGS a step sooner or later
    torch.testing.assert_close(verdict.scores, alone.scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("best", [0.1, 50.0])
def test_several_rates_at_once_are_each_alone_and_val_chooses(train: Beton, best: float) -> None:
    """Labels of val that agree with the bold layer, or all contradict it: then the timid one has the lower loss."""
    found = features()
    alone = {lr: through(train, found, lr=[lr]) for lr in (0.1, 50.0)}
    bold = through(train, {**found, "test": found["val"]}, lr=[50.0]).scores
    agreed = bold.argmax(dim=1) if best == 50.0 else bold.argmin(dim=1)
    found["val"] = dataclasses.replace(found["val"], labels=agreed)
    for rates in ([0.1, 50.0], [50.0, 0.1]):
        verdict = through(train, found, lr=rates)
        assert verdict.hyperparameter == best
        torch.testing.assert_close(verdict.scores, alone[best].scores)
    assert not torch.allclose(alone[0.1].scores, alone[50.0].scores, atol=0.1)


def test_a_rate_whose_loss_is_not_finite_is_never_chosen(train: Beton, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "simclr")
    assert through(train, features(), lr=[1e38, 0.1]).hyperparameter == 0.1
    assert caplog.messages == ["linear_eval.augmented.lr: the loss on val is not finite with 1e+38"]
    with pytest.raises(UserError, match=r"^linear_eval\.augmented\.lr: with none of these rates is the loss"):
        through(train, features(), lr=[1e38])


def test_fewer_samples_than_a_batch_cannot_be_shuffled_at_a_time() -> None:
    check(parameters(shuffle_window=4), "params.yaml")
    with pytest.raises(
        UserError, match=r"^params\.yaml: linear_eval\.augmented\.shuffle_window = 3 is not allowed; it ta"
    ):
        check(parameters(shuffle_window=3), "params.yaml")


def test_the_encoder_stays_as_it_is_even_if_it_was_being_trained(train: Beton) -> None:
    encoder = network().train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    found = features()
    verdict = augmented_probe.probe_augmented(parameters(), encoder, TRANSFORM, {"train": train}, found, ALONE, CLASSES)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(weight.grad is None for weight in encoder.parameters())
    torch.testing.assert_close(verdict.scores, through(train, found).scores)


def test_the_seed_decides(train: Beton) -> None:
    found, scores = features(), []
    for seed in (3, 3, 4):
        torch.manual_seed(len(scores))  # of no importance
        chosen = dataclasses.replace(parameters(), seed=seed)
        scores.append(
            augmented_probe.probe_augmented(
                chosen, network(), TRANSFORM, {"train": train}, found, ALONE, CLASSES
            ).scores
        )
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_a_large_step_is_encoded_in_parts(train: Beton, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = through(train, features())
    monkeypatch.setattr(classifier, "_ENCODED", 3)
    counts = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, images: (counts.append(len(images)), forward(self, images))[1])
    torch.testing.assert_close(through(train, features()).scores, expected.scores, rtol=1e-4, atol=1e-4)
    assert counts.count(3) == 6  # two batches of 4 in each of three epochs; network() and features() encode more
    assert max(count for count in counts if count not in (COUNT, 12, 15, 16)) == 3


# --- the baselines


@pytest.mark.parametrize("zero_init", [True, False])
def test_the_untrained_encoder_is_the_same_network_drawn_by_the_seed_alone(train: Beton, zero_init: bool) -> None:
    found = []
    for seed, trained in ((5, network(0, zero_init)), (5, network(1, zero_init)), (6, network(0, zero_init))):
        torch.manual_seed(len(found))  # of no importance
        found.append(baselines.untrained_features(seed, trained, TRANSFORM, {"train": train}, ALONE)["train"])
    assert torch.equal(found[0].h, found[1].h)
    assert not torch.allclose(found[0].h, found[2].h)
    torch.manual_seed(5)
    fresh = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=zero_init).eval()
    with torch.no_grad():
        torch.testing.assert_close(found[0].h, fresh(normalised(pixels(COUNT, 0))))
    assert found[0].labels.tolist() == train.labels.tolist()


@pytest.mark.parametrize(("size", "shrunk"), [(96, 32), (33, 32), (32, 32), (8, 8)])
def test_raw_pixels_are_those_of_images_of_at_most_32_pixels(tmp_path: Path, size: int, shrunk: int) -> None:
    split = stored(tmp_path / "test.beton", noise(3, size, 0), np.array([2, 0, 1]))
    transform = dataclasses.replace(TRANSFORM, size=size)
    found = baselines.pixel_features(transform, {"test": split}, ALONE)["test"]
    expected = normalised(tv.resize(pixels(3, 0, size), [shrunk, shrunk], antialias=True))
    assert found.h.shape == (3, 3 * shrunk**2)
    torch.testing.assert_close(found.h, expected.flatten(1), rtol=0, atol=1e-4)
    assert found.labels.tolist() == [2, 0, 1]


# --- what is reported


def test_confusion_and_accuracies_are_scikit_learns() -> None:
    scores = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    truth = torch.arange(200) % 6  # the last class has no image
    counts = confusion(scores.numpy(), truth.numpy())
    guesses = scores.argmax(dim=1)
    assert counts.tolist() == metrics.confusion_matrix(truth, guesses, labels=range(7)).tolist()
    recalls = metrics.recall_score(truth, guesses, labels=range(6), average=None)
    np.testing.assert_allclose(counts.diagonal()[:6] / counts.sum(axis=1)[:6], recalls)
    found = topk_accuracy(scores, truth)
    assert found["top1"] == pytest.approx(100 * metrics.accuracy_score(truth, guesses))
    assert found["top5"] == pytest.approx(100 * metrics.top_k_accuracy_score(truth, scores, k=5, labels=range(7)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
def test_scores_of_imbalanced_classes_are_scikit_learns(seed: int) -> None:
    """Of eight classes three have no image; the last is never guessed either."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(8, 300, p=[0.6, 0.2, 0.1, 0.06, 0.04, 0, 0, 0])
    known = generator.random(300) < np.array([0.9, 0.6, 0.5, 0.4, 0.3, 0, 0, 0])[truth]
    guesses = np.where(known, truth, generator.integers(7, size=300))
    found = balanced_scores(confusion(np.eye(8, dtype=np.float32)[guesses], truth))
    assert {5, 6} <= set(guesses)
    assert found == {
        "balanced_accuracy": pytest.approx(100 * metrics.balanced_accuracy_score(truth, guesses)),
        "macro_f1": pytest.approx(100 * metrics.f1_score(truth, guesses, average="macro")),
    }
    assert abs(found["balanced_accuracy"] - 100 * metrics.accuracy_score(truth, guesses)) > 10


def test_each_class_has_its_images_and_its_interval() -> None:
    assert by_class(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 5]]), ["cat", "dog", "cow"]) == [
        {"class": "cat", "accuracy": 75.0, "images": 4, "low": 100 * wilson(3, 4)[0], "high": 100 * wilson(3, 4)[1]},
        {"class": "dog", "accuracy": 0.0, "images": 0, "low": 0.0, "high": 100.0},
        {"class": "cow", "accuracy": 100.0, "images": 5, "low": 100 * wilson(5, 5)[0], "high": 100.0},
    ]


def test_of_few_classes_all_are_among_the_first_five() -> None:
    scores = torch.tensor([[0.1, 0.2], [0.9, 0.3]])
    assert topk_accuracy(scores, torch.tensor([0, 0])) == {"top1": 50.0, "top5": 100.0}
