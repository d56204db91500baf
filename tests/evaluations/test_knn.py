"""kNN for several k against scikit-learn's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from simclr.core.interval import wilson
from simclr.evaluations import knn
from simclr.evaluations.knn import Params
from tests.helpers import betons
from tests.helpers.ranks import ALONE
from tests.helpers.subjects import directions, subject, with_features


def test_accuracies_are_those_of_scikit_learn(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE, train=90, test=60)
    noises = directions(300, 5).split(100)
    for noise, (split, file) in zip(noises, frozen.splits.items(), strict=True):  # classes that overlap
        frozen = with_features(frozen, split, noise[: len(file)] + torch.eye(5)[torch.from_numpy(file.labels)])
    found = knn.evaluate(Params(neighbors=[5, 20], temperature=0.1), frozen)
    for k in (5, 20):
        theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1))
        theirs.fit(frozen.features["train"].h.numpy(), frozen.splits["train"].labels)
        right = theirs.predict(frozen.features["test"].h.numpy()) == frozen.splits["test"].labels
        assert found.metrics[f"top1_k{k}"] == pytest.approx(100 * right.mean())
        low, high = wilson(int(right.sum()), 60)
        assert (found.metrics[f"top1_k{k}_low"], found.metrics[f"top1_k{k}_high"]) == (100 * low, 100 * high)
        on_val = theirs.predict(frozen.features["val"].h.numpy()) == frozen.splits["val"].labels
        assert found.metrics[f"val_top1_k{k}"] == pytest.approx(100 * on_val.mean())
    assert [row["neighbors"] for row in found.table] == [1, 2, 5, 10, 20]
    assert found.table[-1]["accuracy"] == found.metrics["top1_k20"]


def test_no_more_neighbors_than_the_smallest_class_has(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE, train=40)
    names = [f"top1_k{k}{part}" for k in (5, 13) for part in ("", "_low", "_high")]
    found = knn.evaluate(Params(neighbors=[5, 200, 13], temperature=0.1), frozen).metrics
    assert list(found) == [*names, *(f"val_{name}" for name in names)]
    file = betons.stored(tmp_path / "few.beton", betons.noise(40, 8, 0), np.array([0] * 38 + [1] + [2]))
    few = replace(frozen, splits={**frozen.splits, "train": file})
    sizes = {
        name.rpartition("_k")[2].partition("_")[0]
        for name in knn.evaluate(Params(neighbors=[20], temperature=0.1), few).metrics
    }
    assert sizes == {"1"}
