"""What is shown of the projections against loops over samples."""

import math

import pytest
import torch
from torch import Tensor

from simclr.learning import projection_metrics


def dot(u: list[float], v: list[float]) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def loops(z: Tensor) -> dict[str, float]:
    """Wang and Isola 2020, equations 4 and 5, with alpha = t = 2; uniformity and negatives over the first views."""
    unit = [[value / math.hypot(*row) for value in row] for row in z.tolist()]
    half = len(unit) // 2
    first, second = unit[:half], unit[half:]
    positive = list(zip(first, second, strict=True))
    negative = [(u, v) for i, u in enumerate(first) for j, v in enumerate(first) if i != j]
    return {
        "positive_similarity": sum(dot(u, v) for u, v in positive) / half,
        "negative_similarity": sum(dot(u, v) for u, v in negative) / len(negative),
        "alignment": sum(math.dist(u, v) ** 2 for u, v in positive) / half,
        "uniformity": math.log(sum(math.exp(-2 * math.dist(u, v) ** 2) for u, v in negative) / len(negative)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_of_loops(dtype: torch.dtype) -> None:
    z = (3 * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    found = projection_metrics.contrast(z, 2)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(loops(z.detach().float()), abs=1e-5)
    assert not any(value.requires_grad for value in found.values())


def test_collapsed_projections_are_aligned_and_not_uniform() -> None:
    found = projection_metrics.contrast(torch.ones(8, 3), 2)
    assert found["alignment"].item() == pytest.approx(0, abs=1e-6)
    assert found["uniformity"].item() == pytest.approx(0, abs=1e-6)


def test_views_at_the_poles() -> None:
    """Two samples opposite each other, their views equal: |u - v|^2 is 0 for positives and 4 for the others."""
    found = projection_metrics.contrast(torch.tensor([[0.0, 2.0], [0.0, -1.0], [0.0, 5.0], [0.0, -3.0]]), 2)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"positive_similarity": 1, "negative_similarity": -1, "alignment": 0, "uniformity": -8}
    )


def test_large_batches_are_compared_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(projection_metrics, "_ROWS", 3)
    found = projection_metrics.contrast(z, 2)
    assert found["uniformity"].item() == pytest.approx(loops(torch.cat([z[:3], z[10:13]]))["uniformity"], abs=1e-5)
    assert found["alignment"].item() == pytest.approx(loops(z)["alignment"], abs=1e-5)


def test_one_sample_has_no_negatives() -> None:
    found = projection_metrics.contrast(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), 2)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"positive_similarity": math.sqrt(0.5), "alignment": 2 - math.sqrt(2)}
    )


def test_of_more_views_every_pair_is_a_positive() -> None:
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    first, second, third = z.chunk(3)
    pairs = [torch.cat(pair) for pair in ((first, second), (second, third), (third, first))]
    expected = sum(loops(pair)["alignment"] for pair in pairs) / 3
    assert projection_metrics.contrast(z, 3)["alignment"].item() == pytest.approx(expected, abs=1e-5)
