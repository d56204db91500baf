import math

import pytest
import torch

from simclr import knn


def test_neighbors_are_the_most_similar_rows_for_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(7, 5, generator=generator), torch.randn(20, 5, generator=generator)
    whole = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 45)
    similarities, indices = knn.neighbors(queries, bank, 3)
    expected = whole.sort(dim=1, descending=True)
    torch.testing.assert_close(similarities, expected.values[:, :3])
    assert torch.equal(indices, expected.indices[:, :3])


def test_no_more_neighbors_than_there_are() -> None:
    similarities, indices = knn.neighbors(torch.randn(4, 3), torch.randn(2, 3), 20)
    assert similarities.shape == indices.shape == (4, 2)


def test_votes_are_weighted_by_similarity() -> None:
    similarities = torch.tensor([[0.9, 0.5, 0.4]])
    votes = knn.scores(similarities, torch.tensor([[1, 0, 0]]), classes=3, temperature=0.1)
    expected = [math.exp(5 - 9) + math.exp(4 - 9), 1.0, 0.0]
    torch.testing.assert_close(votes, torch.tensor([expected]))


def test_a_small_temperature_lets_the_nearest_decide() -> None:
    similarities = torch.tensor([[1.0, 0.99, 0.98], [-0.9, -0.91, -0.92]])
    votes = knn.scores(similarities, torch.tensor([[2, 0, 0], [1, 0, 0]]), classes=3, temperature=0.001)
    assert votes.isfinite().all()
    assert votes.argmax(dim=1).tolist() == [2, 1]


def test_accuracy_counts_the_top_k() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    labels = torch.tensor([1, 1, 0])
    assert knn.accuracy(scores, labels) == pytest.approx(1 / 3)
    assert knn.accuracy(scores, labels, 2) == pytest.approx(2 / 3)
    assert knn.accuracy(scores, labels, 5) == 1.0
