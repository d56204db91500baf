"""The linear probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from simclr import probe

CLASSES = 3


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
    found = probe.fit(features, labels, CLASSES, l2, iterations=500)
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


def test_more_classes_than_labels_seen_are_fine() -> None:
    features, labels = samples(30, seed=0)
    found = probe.fit(features, labels, 5, 0.01, iterations=100)
    assert found(features).shape == (30, 5)
    assert (found(features).argmax(dim=1) < CLASSES).all()


def test_where_the_search_starts_does_not_change_the_optimum() -> None:
    features, labels = samples(90, seed=0)
    cold = probe.fit(features, labels, CLASSES, 1e-3, iterations=500)
    strong = probe.fit(features, labels, CLASSES, 10.0, iterations=500)
    before = strong.weights.clone()
    warm = probe.fit(features, labels, CLASSES, 1e-3, iterations=500, start=strong)
    assert not torch.allclose(strong.weights, cold.weights, atol=0.1)
    torch.testing.assert_close(warm(features), cold(features), rtol=0, atol=1e-4)
    assert torch.equal(strong.weights, before)


def test_a_constant_feature_has_no_say() -> None:
    """Not even where it is not constant: no division by a standard deviation that rounding made."""
    features, labels = samples(90, seed=0, dtype=torch.float32)
    constant = torch.tensor([0.1, -0.812608, 1e-30, 0.0])
    wider = torch.cat([features, constant.expand(90, 4)], dim=1)
    found = probe.fit(wider, labels, CLASSES, 1e-3, iterations=200)
    unseen = torch.cat([samples(20, seed=1, dtype=torch.float32)[0], torch.full((20, 4), 2.0)], dim=1)
    expected = probe.fit(features, labels, CLASSES, 1e-3, iterations=200)(unseen[:, :6])
    torch.testing.assert_close(found(unseen), expected, rtol=0, atol=1e-2)


def test_the_strength_with_the_lowest_loss_on_val_is_chosen() -> None:
    train, val = samples(30, seed=0), samples(300, seed=1)
    strengths = [1e-6, 1e-2, 1e-4, 1.0, 0.1, 10.0]
    probes = {l2: probe.fit(*train, CLASSES, l2, iterations=1000) for l2 in strengths}
    losses = {l2: F.cross_entropy(found(val[0]), val[1]).item() for l2, found in probes.items()}
    best = min(losses, key=losses.__getitem__)
    accuracies = {l2: (found(val[0]).argmax(dim=1) == val[1]).double().mean().item() for l2, found in probes.items()}
    assert best not in (min(strengths), max(strengths))
    assert best != max(accuracies, key=accuracies.__getitem__)
    found, chosen = probe.select(train, val, CLASSES, strengths, iterations=1000)
    assert chosen == best
    torch.testing.assert_close(found(val[0]), probes[best](val[0]), rtol=0, atol=1e-3)


def test_val_decides_on_the_strength_alone() -> None:
    train, val = samples(30, seed=0), samples(30, seed=1)
    usual, _ = probe.select(train, val, CLASSES, [0.01], iterations=100)
    other, _ = probe.select(train, (val[0], val[1].flip(0)), CLASSES, [0.01], iterations=100)
    assert torch.equal(usual.weights, other.weights)
    assert torch.equal(usual.mean, train[0].mean(dim=0))
