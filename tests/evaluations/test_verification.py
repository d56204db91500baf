"""Pairs, thresholds and the network on representations made by hand."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from simclr.core.errors import UserError
from simclr.evaluations import verification
from simclr.evaluations.verification import Params, best_threshold, draw_pairs
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE
from tests.helpers.subjects import directions, subject, with_features

PARAMETERS = Params(pairs=600, hidden=16, epochs=30, lr=0.01)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2] * 5, [0, 0, 1], [3, 1, 1, 1, 1], [0, 1, 1, 0, 2, 7]], ids=["even", "least", "one", "mixed"]
)
def test_pairs_are_by_turns_of_one_class_and_of_two(labels: list[int]) -> None:
    own = np.array(labels)
    first, second = draw_pairs(own, 200, 0)
    assert (first != second).all()
    same = own[first] == own[second]
    assert same.tolist() == [number % 2 == 0 for number in range(200)]
    # every pair that there is comes up
    there_are = {(i, j) for i in range(len(own)) for j in range(len(own)) if i != j}
    if len(own) < 6:
        assert set(zip(first.tolist(), second.tolist(), strict=True)) == there_are


def test_pairs_are_alike_often() -> None:
    labels = np.array([0] * 4 + [1] * 4)
    first, second = draw_pairs(labels, 40_000, 3)
    counts = Counter(zip(first.tolist(), second.tolist(), strict=True))
    assert len(counts) == 56
    same = [count for (i, j), count in counts.items() if labels[i] == labels[j]]
    assert max(same) < 1.2 * min(same)
    assert not np.array_equal(draw_pairs(labels, 40, 4)[0], first[:40])


def test_the_best_threshold_is_that_of_trying_all() -> None:
    generator = np.random.default_rng(0)
    for _ in range(500):
        scores = generator.integers(0, 6, 12).astype(np.float64)
        same = (generator.random(12) < 0.5).astype(np.float32)
        if 0 < same.sum() < 12:
            correct = {bound: ((scores >= bound) == (same == 1)).sum() for bound in [*scores, np.inf]}
            best = [bound for bound, count in correct.items() if count == max(correct.values())]
            assert best_threshold(scores, same) == max(best)


def test_classes_apart_are_told_apart_and_noise_is_not(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE, train=90, test=60)
    apart = frozen
    for split, file in frozen.splits.items():
        labels = torch.from_numpy(file.labels)
        apart = with_features(apart, split, torch.nn.functional.one_hot(labels, 4).float())
    found = verification.evaluate(PARAMETERS, apart).metrics
    assert found == {"accuracy": 100, "auc": 100, "cosine_accuracy": 100, "cosine_auc": 100}
    for split, file in frozen.splits.items():
        frozen = with_features(frozen, split, directions(len(file), 4))
    found = verification.evaluate(PARAMETERS, frozen).metrics
    assert all(30 < value < 70 for value in found.values())


def test_the_threshold_is_chosen_on_val(tmp_path: Path) -> None:
    """Where val has pairs of one class at a cosine of 1 and others at 0.8, and test has 0.6 and 0.4, a threshold of val
    takes no pair of test for the same: half of them are not."""
    frozen = subject(tmp_path, ALONE, train=90, test=60)
    for split, (same, other) in {"train": (1.0, 0.8), "val": (1.0, 0.8), "test": (0.6, 0.4)}.items():
        frozen = with_features(frozen, split, at_cosines(frozen.splits[split].labels, same, other))
    found = verification.evaluate(PARAMETERS, frozen).metrics
    assert found["cosine_auc"] == 100
    assert found["cosine_accuracy"] == 50


def at_cosines(labels: npt.NDArray[np.int64], same: float, other: float) -> torch.Tensor:
    """Directions (N, 90) with a cosine of `same` between two of one class, and of `other` between two others."""
    cosines = np.where(labels[:, None] == labels, same, other)
    np.fill_diagonal(cosines, 1)
    values, vectors = np.linalg.eigh(cosines)
    directions = np.zeros((len(labels), 90), np.float32)
    directions[:, : len(labels)] = vectors * np.sqrt(values.clip(0))
    return torch.from_numpy(directions)


def test_the_network_learns_what_the_cosine_cannot_see(tmp_path: Path) -> None:
    """Classes that differ in one small direction beside a large one that says nothing."""
    frozen = subject(tmp_path, ALONE, train=90, test=60)
    for split, file in frozen.splits.items():
        labels = torch.from_numpy(file.labels)[:, None].float() - 1
        frozen = with_features(frozen, split, torch.cat([labels, 30 * directions(len(file), 1)], dim=1))
    found = verification.evaluate(replace(PARAMETERS, epochs=60), frozen).metrics
    assert found["auc"] > 90 > 65 > found["cosine_auc"]


def test_a_rate_that_diverges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"evaluations.verification.lr = 1e\+20 is not allowed; it takes a lower rate: "
    ):
        verification.evaluate(replace(PARAMETERS, lr=1e20), subject(tmp_path, ALONE))


def test_a_curve_rises_from_left_to_right(tmp_path: Path) -> None:
    table = verification.evaluate(replace(PARAMETERS, epochs=1), subject(tmp_path, ALONE)).table
    assert list(table[0]) == ["false_positives", "network", "cosine", "chance"]
    for column in table[0]:
        values = [float(row[column]) for row in table]
        assert values == sorted(values)
        assert values[-1] == 100


@pytest.mark.parametrize("labels", [[0] * 12, list(range(12))], ids=["one class", "one image each"])
def test_data_without_such_pairs_are_refused(labels: list[int], tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    val = stored(tmp_path / "other.beton", noise(12, 8, 0), np.array(labels))
    message = "val has no two images of one class, or one class alone; leave verification out of evaluate.evaluations"
    with pytest.raises(UserError, match=message):
        verification.evaluate(PARAMETERS, replace(frozen, splits={**frozen.splits, "val": val}))
