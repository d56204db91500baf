"""Accuracy under augmentations and under PGD, with the pixels as representations, by loops and closed forms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from simclr.augment import Draws
from simclr.evaluations import Subject, _pgd, robustness
from simclr.evaluations.robustness import Params
from simclr.features import logistic_regression
from simclr.features.encoder_file import freeze
from simclr.models.resnet import Encoder
from tests.helpers.ranks import ALONE
from tests.helpers.subjects import SIDE, subject

EPSILON = 0.05


def metrics(frozen: Subject, **changes: Any) -> dict[str, float]:
    chosen = {"images": 100, "l2": 0.1, "epsilon": [0], "steps": 1, "step_size": 0.25} | changes
    return dict(robustness.evaluate(Params(**chosen), frozen).metrics)


def probe(frozen: Subject) -> logistic_regression.Probe:
    return logistic_regression.fit(frozen.features["train"], 3, 0.1, 200, ALONE)


def pixels(frozen: Subject) -> Tensor:
    """The images of test, (N, 3, S, S) in [0, 1]."""
    normalised = frozen.features["test"].h.view(-1, 3, SIDE, SIDE)
    return normalised * 0.2 + 0.4


def accuracy(frozen: Subject, images: Tensor) -> float:
    guesses = probe(frozen)(frozen.transform.normalise(images).flatten(1)).argmax(dim=1)
    return 100 * int((guesses == frozen.features["test"].labels).sum()) / len(images)


def images_and_labels(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 3, SIDE, SIDE, generator=generator), torch.arange(12) % classes


def starts(images: Tensor) -> Tensor:
    return 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 1


@pytest.fixture
def network() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    freeze(encoder)
    return encoder


# --- the attack


@pytest.mark.parametrize("scale", [0.05, 10.0])
@pytest.mark.parametrize(("step", "steps"), [(EPSILON / 4, 10), (2 * EPSILON, 1)])
def test_on_a_linear_classifier_of_two_classes_it_is_the_closed_form(step: float, steps: int, scale: float) -> None:
    """The loss rises along the difference of the two weights, and nowhere else: its maximum is a corner of the box.
    Even where the classifier is so sure that float32 has no cross entropy left."""
    images, labels = images_and_labels(classes=2)
    weights = scale * torch.randn(2, 3 * SIDE**2, generator=torch.Generator().manual_seed(2))
    found = _pgd.attacked(
        lambda given: given.flatten(1) @ weights.T, images, labels, starts(images), EPSILON, step, steps
    )
    direction = (weights[1 - labels] - weights[labels]).sign().view_as(images)
    torch.testing.assert_close(found, (images + EPSILON * direction).clamp(0, 1))


def test_it_stays_within_its_bounds_and_the_loss_rises(network: Encoder) -> None:
    images, labels = images_and_labels(classes=8)
    images[0], images[1] = 0.0, 1.0

    def loss(given: Tensor) -> float:
        return F.cross_entropy(network(given), labels).item()

    losses = [loss(images)]
    for steps in (1, 3, 10):
        found = _pgd.attacked(network, images, labels, starts(images), EPSILON, EPSILON / 4, steps)
        assert (found - images).abs().max() <= EPSILON + 1e-7
        assert (found - images).abs().amax(dim=(1, 2, 3)).min() > EPSILON / 2
        assert found.min() >= 0
        assert found.max() <= 1
        assert not found.requires_grad
        losses.append(loss(found))
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 0.05
    assert all(weight.grad is None for weight in network.parameters())


def test_without_a_gradient_it_stays_at_its_start() -> None:
    images, labels = images_and_labels(classes=2)
    begun = _pgd.attacked(
        lambda given: 0 * given.flatten(1)[:, :2], images, labels, starts(images), EPSILON, EPSILON, 3
    )
    torch.testing.assert_close(begun, (images + EPSILON * starts(images)).clamp(0, 1))


@pytest.mark.parametrize("batch", [4, 64])
def test_its_start_belongs_to_seed_and_sample(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = subject(tmp_path, ALONE)
    seen: list[Tensor] = []
    attacked = _pgd.attacked
    monkeypatch.setattr(robustness, "attacked", lambda *given: (seen.append(given[3]), attacked(*given))[1])
    monkeypatch.setattr(robustness, "_ATTACKED", batch)
    for seed in (0, 1):
        seen.clear()
        metrics(replace(frozen, seed=seed))
        assert len(seen) == -(-24 // batch)
        drawn = Draws("pgd", seed, 1, np.arange(24), views=1).uniform("", 3, SIDE, SIDE)[:, 0]
        torch.testing.assert_close(torch.cat(seen), torch.from_numpy(2 * drawn - 1).float())
    assert torch.cat(seen).min() < -0.99
    assert torch.cat(seen).max() > 0.99


def test_a_resnet_50_at_224_px_is_attacked_in_8_gb() -> None:
    """By what autograd keeps of two images, weights aside, without the values, for which there would be no memory."""
    with FakeTensorMode():
        encoder = freeze(Encoder("resnet50", 1.0, small_stem=False, zero_init_residual=False))
        weights = {weight.untyped_storage()._cdata for weight in encoder.state_dict().values()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        images = torch.zeros(2, 3, 224, 224)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _pgd.attacked(encoder, images, torch.zeros(2, dtype=torch.int64), images, EPSILON, EPSILON, 1)
    of_images = sum(size for storage, size in kept.items() if storage not in weights)
    assert 1e9 < robustness._ATTACKED * of_images / 2 < 8e9


# --- accuracies


def test_accuracies_under_attack_by_a_loop_over_images(tmp_path: Path) -> None:
    """With the gradient of a linear classifier by hand: softmax less the truth, times the weights."""
    frozen = subject(tmp_path, ALONE)
    fitted = probe(frozen)
    weights = fitted.weights / fitted.std / 0.2
    expected = {}
    for epsilon in (0, 4, 30, 40):
        bound, right = epsilon / 255, 0
        for sample, image in enumerate(pixels(frozen)):
            drawn = Draws("pgd", 0, 1, np.array([sample]), views=1).uniform("", 3, SIDE, SIDE)[0, 0]
            label = frozen.splits["test"].labels[sample]
            changed = (image + bound * torch.from_numpy(2 * drawn - 1).float()).clamp(0, 1)
            for _ in range(6):
                errors = fitted(frozen.transform.normalise(changed[None]).flatten(1))[0].softmax(dim=0)
                errors[label] -= 1
                changed = changed + 0.3 * bound * (errors @ weights).sign().view_as(image)
                changed = torch.minimum(torch.maximum(changed, image - bound), image + bound).clamp(0, 1)
            scores = fitted(frozen.transform.normalise(changed[None]).flatten(1))[0]
            right += int(scores.argmax()) == label
        expected[f"pgd_{epsilon}"] = 100 * right / 24
    found = metrics(frozen, epsilon=[40, 0, 30, 4, 4], steps=6, step_size=0.3)
    assert {name: value for name, value in found.items() if name.startswith("pgd")} == pytest.approx(expected)
    assert list(found)[-4:] == ["pgd_0", "pgd_4", "pgd_30", "pgd_40"]
    assert found["pgd_0"] == found["clean"] > found["pgd_30"] > found["pgd_40"]


def test_without_a_change_it_is_the_linear_probe(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    assert metrics(frozen)["clean"] == accuracy(frozen, pixels(frozen)) > 50
    assert metrics(frozen, images=5)["clean"] in (0, 20, 40, 60, 80, 100)


def test_at_full_strength_everything_happens_as_params_yaml_says(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    images, found = pixels(frozen), metrics(frozen)
    threshold = frozen.augmentations["solarize"].parameters.threshold
    assert found["flip"] == accuracy(frozen, images.flip(3))
    assert found["solarize"] == accuracy(frozen, torch.where(images >= threshold, 1 - images, images))
    assert found["solarize"] < found["clean"]
    names = list(frozen.augmentations)
    assert list(found) == ["clean", *names, "mean", "pgd_0"]
    assert found["mean"] == pytest.approx(np.mean([found[name] for name in names]))


def test_the_table_goes_from_clean_to_full_strength(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    table = robustness.evaluate(Params(images=100, l2=0.1, epsilon=[0], steps=1, step_size=0.25), frozen).table
    found, images = metrics(frozen), pixels(frozen)
    assert [row["strength"] for row in table] == [0, 0.25, 0.5, 0.75, 1]
    for name in frozen.augmentations:
        assert table[0][name] == found["clean"]
        assert table[-1][name] == found[name]
    halfway = 0.5 * 256 / 255 + 0.5 * frozen.augmentations["solarize"].parameters.threshold
    assert table[2]["solarize"] == accuracy(frozen, torch.where(images >= halfway, 1 - images, images))
    assert len({row["flip"] for row in table[1:]}) == 1


def test_a_weaker_augmentation_is_a_share_of_the_way_from_the_identity(tmp_path: Path) -> None:
    options = subject(tmp_path, ALONE).augmentations

    def weakened(name: str, share: float) -> Any:
        return robustness._weakened(options[name], share).parameters

    for name, option in options.items():
        given = option.parameters
        certain = {"probability": 1.0} if hasattr(given, "probability") else {}
        assert weakened(name, 1.0) == replace(given, **certain)
        assert weakened(name, 0.0) == replace(given, **certain, **getattr(option.module, "IDENTITY", {}))
    low, high = options["crop"].parameters.scale
    assert weakened("crop", 0.5).scale == pytest.approx([(1 + low) / 2, (1 + high) / 2])
    assert weakened("rotate", 0.25).degrees == options["rotate"].parameters.degrees / 4
    assert weakened("jitter", 0.25).brightness == options["jitter"].parameters.brightness / 4
    assert weakened("flip", 0.25) == weakened("flip", 1.0)
