"""The linear probe against scikit-learn's logistic regression."""

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
from tests.helpers.fake_memory import CUDA, counted
from tests.helpers.ranks import ALONE, on_ranks

CLASSES = 3


def fit(
    features: Tensor, labels: Tensor, classes: int, l2: float, iterations: int, **named: logistic_regression.Probe
) -> logistic_regression.Probe:
    return logistic_regression.fit(Features(features, labels, len(labels)), classes, l2, iterations, ALONE, **named)


def select(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], classes: int, strengths: list[float], iterations: int
) -> tuple[logistic_regression.Probe, float]:
    splits = (Features(*split, count=len(split[1])) for split in (train, val))
    return logistic_regression.select(*splits, classes, strengths, iterations, ALONE)


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


def on_rank(session: Session, whole: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> tuple[list[Tensor], float]:
    logistic_regression._ROWS, logistic_regression._SCORES = 7, 20  # blocks of a few rows
    train, own_val = (
        Features(*(rows[shares.own(len(split[1]), session)] for rows in split), count=len(split[1]))
        for split in (whole, val)
    )
    found, chosen = logistic_regression.select(train, own_val, CLASSES, [1.0, 0.01], 500, session)
    return [found.mean, found.std, found.weights, found.bias], chosen


@pytest.mark.parametrize(("world", "count"), [(2, 45), (4, 45), (4, 5)])
def test_ranks_fit_what_one_process_does(world: int, count: int) -> None:
    """With shares of different sizes; of 5 rows the last of four ranks has none. And a feature that is constant."""
    features, labels = samples(count, seed=0)
    train = torch.cat([features, torch.full((count, 1), 0.1)], dim=1), labels
    features, labels = samples(30, seed=1)
    val = torch.cat([features, torch.full((30, 1), 0.1)], dim=1), labels
    expected, strength = select(train, val, CLASSES, [1.0, 0.01], 500)
    results = on_ranks(world, on_rank, train, val)
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


@pytest.mark.parametrize("block", [1, 40, 1 << 26])
def test_blocks_of_rows_add_up(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_regression, "_SCORES", block)
    features, labels = samples(50, seed=0)
    weights = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(features @ weights.T + bias, labels).backward()
    loss, by_weights, by_bias = logistic_regression._cross_entropy(
        features, labels, 50, weights.detach(), bias.detach()
    )
    torch.testing.assert_close(loss, F.cross_entropy(features @ weights.T + bias, labels).detach())
    torch.testing.assert_close(by_weights, weights.grad)
    torch.testing.assert_close(by_bias, bias.grad)


def test_imagenet_fits_into_40_gb_of_a_gpu() -> None:
    """Raw pixels, the widest of the inputs, and 1,000 classes; beside what the solver keeps of 100 steps."""
    count, width, classes = 1_281_167, 3 * 32 * 32, 1000
    session = Session(rank=0, world_size=1, device=CUDA)
    with counted() as peak:
        train = Features(
            torch.empty(count, width, device=CUDA), torch.zeros(count, dtype=torch.int64, device=CUDA), count
        )
        inputs, start = logistic_regression._standardise(train, classes, session)
        history = [torch.empty_like(start.weights) for _ in range(2 * 100)]
        logistic_regression._cross_entropy(inputs, train.labels, count, start.weights, start.bias)
        del history
    assert peak.gpu < 40e9
    assert peak.host < 1e9
