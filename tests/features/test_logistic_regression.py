"""The linear probe against scikit-learn's logistic regression."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import logistic_regression
from simclr.features.encode import Features
from tests.helpers.ranks import ALONE, on_ranks

CLASSES = 3


def fit(
    features: Tensor, labels: Tensor, classes: int, l2: float, iterations: int, **named: Any
) -> logistic_regression.Probe:
    return logistic_regression.fit(Features(features, labels, len(labels)), classes, l2, iterations, ALONE, **named)


def select(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: int,
    strengths: list[float],
    iterations: int,
    **named: bool,
) -> tuple[logistic_regression.Probe, float]:
    splits = (Features(*split, count=len(split[1])) for split in (train, val))
    return logistic_regression.select(*splits, classes, strengths, iterations, ALONE, **named)


def samples(count: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features of very different means and scales, of overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    features = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    features[:, :CLASSES] += 1.5 * F.one_hot(labels, CLASSES)
    scale = torch.tensor([1, 100, 0.01, 1, 10, 3], dtype=torch.float64)
    return (features * scale + torch.arange(6)).to(dtype), labels


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_logistic_regression_of_the_standardised_features(l2: float, dtype: torch.dtype) -> None:
    features, labels = samples(90, seed=0, dtype=dtype)
    unseen, _ = samples(20, seed=1, dtype=dtype)
    found = fit(features, labels, CLASSES, l2, iterations=500)
    array = features.double().numpy()
    mean, std = array.mean(axis=0), array.std(axis=0)
    reference = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-10, max_iter=10_000)
    reference.fit((array - mean) / std, labels.numpy())
    tolerance = 1e-4 if dtype == torch.float64 else 2e-3
    np.testing.assert_allclose(found.weights.double().numpy(), reference.coef_, atol=tolerance)
    np.testing.assert_allclose(
        found(unseen).softmax(dim=1).numpy(),
        reference.predict_proba((unseen.double().numpy() - mean) / std),
        atol=tolerance,
    )


def imbalanced(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """`samples` of which the last class has a tenth of the images."""
    features, labels = samples(count, seed)
    kept = (labels < CLASSES - 1) | (torch.arange(count) % 10 == 1)
    return features[kept], labels[kept]


@pytest.mark.parametrize("l2", [1e-4, 1e-2])
def test_balanced_classes_are_those_of_scikit_learn(l2: float) -> None:
    """With a class of which train has no image: scikit-learn does not count it."""
    features, labels = imbalanced(180, seed=0)
    found = fit(features, labels, CLASSES + 1, l2, iterations=500, balanced=True)
    array = ((features - features.mean(dim=0)) / features.std(dim=0, correction=0)).numpy()
    reference = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-10, max_iter=10_000, class_weight="balanced")
    reference.fit(array, labels.numpy())
    np.testing.assert_allclose(found(features)[:, :CLASSES].softmax(dim=1), reference.predict_proba(array), atol=1e-3)
    plain = fit(features, labels, CLASSES + 1, l2, iterations=500)
    assert (found(features).argmax(dim=1) == 2).sum() > (plain(features).argmax(dim=1) == 2).sum()


def test_balanced_classes_of_one_size_change_nothing() -> None:
    features, labels = samples(90, seed=0)
    plain, balanced = (fit(features, labels, CLASSES, 1e-3, iterations=500, balanced=flag) for flag in (False, True))
    torch.testing.assert_close(plain.weights, balanced.weights)


def test_on_val_each_class_weighs_the_same_if_balanced() -> None:
    """Of val, one class has most images, and without weights decides; the others, confused, want a timid probe."""
    train, (features, labels) = samples(30, seed=0), samples(300, seed=1)
    kept = (labels == 0) | (torch.arange(300) % 50 < 2)
    val, strengths = (features[kept], torch.tensor([0, 2, 1])[labels[kept]]), [1e-3, 1e-2, 0.1, 1.0, 10.0]
    chosen = {}
    for balanced in (False, True):
        losses = {}
        for l2 in strengths:
            scores = fit(*train, CLASSES, l2, iterations=1000, balanced=balanced)(val[0])
            by_image = F.cross_entropy(scores, val[1], reduction="none")
            of_class = torch.stack([by_image[val[1] == label].mean() for label in range(CLASSES)])
            losses[l2] = (of_class.mean() if balanced else by_image.mean()).item()
        chosen[balanced] = min(losses, key=losses.__getitem__)
        assert select(train, val, CLASSES, strengths, 1000, balanced=balanced)[1] == chosen[balanced]
    assert chosen[False] != chosen[True]


def test_more_classes_than_labels_seen_are_fine() -> None:
    features, labels = samples(30, seed=0)
    found = fit(features, labels, 5, 0.01, iterations=100)
    assert found(features).shape == (30, 5)
    assert (found(features).argmax(dim=1) < CLASSES).all()


def test_where_the_search_starts_does_not_change_the_optimum() -> None:
    features, labels = samples(90, seed=0)
    cold = fit(features, labels, CLASSES, 1e-3, iterations=500)
    strong = fit(features, labels, CLASSES, 10.0, iterations=500)
    before = strong.weights.clone()
    warm = fit(features, labels, CLASSES, 1e-3, iterations=500, start=strong)
    assert not torch.allclose(strong.weights, cold.weights, atol=0.1)
    torch.testing.assert_close(warm(features), cold(features), rtol=0, atol=1e-4)
    assert torch.equal(strong.weights, before)


def test_a_constant_feature_has_no_say() -> None:
    """Not even where it is not constant: no division by a standard deviation that rounding made."""
    features, labels = samples(90, seed=0, dtype=torch.float32)
    constant = torch.tensor([0.1, -0.812608, 1e-30, 0.0])
    wider = torch.cat([features, constant.expand(90, 4)], dim=1)
    found = fit(wider, labels, CLASSES, 1e-3, iterations=200)
    unseen = torch.cat([samples(20, seed=1, dtype=torch.float32)[0], torch.full((20, 4), 2.0)], dim=1)
    expected = fit(features, labels, CLASSES, 1e-3, iterations=200)(unseen[:, :6])
    torch.testing.assert_close(found(unseen), expected, rtol=0, atol=1e-2)


def test_the_strength_with_the_lowest_loss_on_val_is_chosen() -> None:
    train, val = samples(30, seed=0), samples(300, seed=1)
    strengths = [1e-6, 1e-2, 1e-4, 1.0, 0.1, 10.0]
    probes = {l2: fit(*train, CLASSES, l2, iterations=1000) for l2 in strengths}
    losses = {l2: F.cross_entropy(found(val[0]), val[1]).item() for l2, found in probes.items()}
    best = min(losses, key=losses.__getitem__)
    accuracies = {l2: (found(val[0]).argmax(dim=1) == val[1]).double().mean().item() for l2, found in probes.items()}
    assert best not in (min(strengths), max(strengths))
    assert best != max(accuracies, key=accuracies.__getitem__)
    found, chosen = select(train, val, CLASSES, strengths, iterations=1000)
    assert chosen == best
    torch.testing.assert_close(found(val[0]), probes[best](val[0]), rtol=0, atol=1e-3)


def test_val_decides_on_the_strength_alone() -> None:
    train, val = samples(30, seed=0), samples(30, seed=1)
    usual, _ = select(train, val, CLASSES, [0.01], iterations=100)
    other, _ = select(train, (val[0], val[1].flip(0)), CLASSES, [0.01], iterations=100)
    assert torch.equal(usual.weights, other.weights)
    torch.testing.assert_close(usual.mean, train[0].mean(dim=0))


def on_rank(
    session: Session, whole: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], balanced: bool
) -> tuple[list[Tensor], float]:
    logistic_regression._ROWS, logistic_regression._SCORES = 7, 20  # blocks of a few rows
    train, own_val = (
        Features(*(rows[shares.own(len(split[1]), session)] for rows in split), count=len(split[1]))
        for split in (whole, val)
    )
    found, chosen = logistic_regression.select(train, own_val, CLASSES, [1.0, 0.01], 500, session, balanced=balanced)
    return [found.mean, found.std, found.weights, found.bias], chosen


@pytest.mark.parametrize(("world", "count", "balanced"), [(2, 45, False), (4, 45, False), (4, 5, False), (4, 47, True)])
def test_ranks_fit_what_one_process_does(world: int, count: int, balanced: bool) -> None:
    """With shares of different sizes; of 5 rows the last of four ranks has none. And a feature that is constant."""
    features, labels = samples(count, seed=0)
    train = torch.cat([features, torch.full((count, 1), 0.1)], dim=1), labels
    features, labels = samples(30, seed=1)
    val = torch.cat([features, torch.full((30, 1), 0.1)], dim=1), labels
    expected, strength = select(train, val, CLASSES, [1.0, 0.01], 500, balanced=balanced)
    results = on_ranks(world, on_rank, train, val, balanced)
    for (mean, std, weights, bias), chosen in results:
        assert chosen == strength
        torch.testing.assert_close(mean, expected.mean)
        torch.testing.assert_close(std, expected.std)
        torch.testing.assert_close(weights, expected.weights, rtol=0, atol=1e-4)
        torch.testing.assert_close(bias, expected.bias, rtol=0, atol=1e-4)
        assert torch.equal(weights, results[0][0][2])  # or they would go different ways


@pytest.mark.parametrize("world", [2, 3])
def test_a_constant_feature_has_no_say_among_ranks_either(world: int) -> None:
    h = torch.tensor([0.1, -0.812608, 1e-30, 0.0]).expand(90, 4)
    for std in on_ranks(world, deviations, h):
        assert std.tolist() == [1.0] * 4


def deviations(session: Session, h: Tensor) -> Tensor:
    own = h[shares.own(len(h), session)]
    return logistic_regression._standardise(
        Features(own, torch.zeros(len(own), dtype=torch.int64), len(h)), CLASSES, session
    )[1].std


@pytest.mark.parametrize("class_weights", [None, torch.tensor([1.0, 0.2, 5.0], dtype=torch.float64)])
@pytest.mark.parametrize("block", [1, 40, 1 << 26])
def test_blocks_of_rows_add_up(block: int, class_weights: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_regression, "_SCORES", block)
    features, labels = samples(50, seed=0)
    weights = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    expected = F.cross_entropy(features @ weights.T + bias, labels, class_weights, reduction="sum") / 50
    expected.backward()
    loss, by_weights, by_bias = logistic_regression._cross_entropy(
        features, labels, 50, weights.detach(), bias.detach(), class_weights
    )
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(by_weights, weights.grad)
    torch.testing.assert_close(by_bias, bias.grad)
