"""Rank, uniformity and spectrum against loops, and by hand."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from simclr.evaluations import health
from simclr.evaluations.health import Params, effective_rank
from tests.helpers.ranks import ALONE
from tests.helpers.subjects import directions, subject, with_features


@pytest.mark.parametrize(("rows", "dimension"), [(8, 8), (40, 8), (5, 8)])
def test_the_effective_rank_of_orthogonal_rows_is_their_number(rows: int, dimension: int) -> None:
    h = torch.eye(dimension).repeat(-(-rows // dimension), 1)[:rows]
    assert effective_rank(h) == pytest.approx(min(rows, dimension))


def test_the_effective_rank_by_its_definition() -> None:
    h = directions(30, 6) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.0])
    values = torch.linalg.svdvals(h.double()).tolist()
    shares = [value / sum(values) for value in values]
    assert effective_rank(h) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares if p > 1e-12)), rel=1e-6)


def test_collapse_is_rank_one_and_uniformity_zero(tmp_path: Path) -> None:
    for h in (torch.ones(24, 5), torch.zeros(24, 5)):
        found = health.evaluate(Params(images=100), with_features(subject(tmp_path, ALONE), "test", h))
        assert found.metrics["effective_rank"] == pytest.approx(1)
        assert found.table
        assert found.metrics["uniformity"] == pytest.approx(0, abs=1e-6)
        assert found.metrics["similarity"] == pytest.approx(float(h[0, 0]))


@pytest.mark.parametrize("rows", [7, 512])
def test_pairs_by_loops_whatever_the_block(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ROWS", rows)
    h = directions(24, 5)
    found = health.evaluate(Params(images=100), with_features(subject(tmp_path, ALONE), "test", h))
    u = F.normalize(h.double(), dim=1)
    pairs = [(u[i], u[j]) for i in range(24) for j in range(24) if i != j]
    potential = sum(math.exp(-2 * float((a - b).square().sum())) for a, b in pairs) / len(pairs)
    assert found.metrics["uniformity"] == pytest.approx(math.log(potential), rel=1e-5)
    assert found.metrics["similarity"] == pytest.approx(sum(float(a @ b) for a, b in pairs) / len(pairs), abs=1e-6)


def test_the_table_ends_with_all_of_the_variance(tmp_path: Path) -> None:
    h = directions(24, 5) * torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0])
    found = health.evaluate(Params(images=100), with_features(subject(tmp_path, ALONE), "test", h))
    variances = torch.linalg.eigvalsh(torch.cov(h.double().T)).flip(0)
    assert [row["components"] for row in found.table] == [1, 2, 3, 4, 5]
    assert [row["cumulative_variance"] for row in found.table] == pytest.approx(
        (100 * variances.cumsum(0) / variances.sum()).tolist()
    )


def test_some_images_are_drawn_by_the_seed(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    assert len(set(frozen.draw("test", 10))) == 10
    assert (frozen.draw("test", 10) == frozen.draw("test", 10)).all()
    assert frozen.draw("test", 100).tolist() == list(range(24))
