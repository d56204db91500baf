"""What the alarm for collapse measures."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from simclr.training import collapse


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_similarity_is_the_mean_cosine_of_all_pairs(scale: float) -> None:
    h = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
    pairs = [F.cosine_similarity(a, b, dim=0) for a, b in itertools.product(h, h)]
    assert collapse.similarity((scale * h).float()) == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)


def test_images_without_a_direction_are_alike() -> None:
    assert collapse.similarity(torch.zeros(6, 4)) == pytest.approx(1)
    assert collapse.similarity(torch.eye(4)[:1].expand(6, 4)) == pytest.approx(1)
    half = torch.cat([torch.zeros(2, 4), torch.eye(4)[:1].expand(2, 4)])
    assert collapse.similarity(half) == pytest.approx(0.5)  # the other half of the pairs has 0
