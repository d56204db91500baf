"""The kNN classifier against every similarity at once, in any blocks and on any number of ranks."""

import math

import pytest
import torch
import torch.nn.functional as F
from benchmarks.fake_memory import CUDA, GIB, counted
from torch import Tensor

from simclr.distributed import shares
from simclr.distributed.session import Session
from simclr.features import knn
from tests.helpers.ranks import ALONE, on_ranks


def dense(queries: Tensor, bank: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """All similarities, sorted; of equal ones the first row of the bank comes first."""
    found = (F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T).sort(dim=1, descending=True, stable=True)
    return found.values[:, :count], found.indices[:, :count]


def scattered(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed))


def tied(rows: int, seed: int) -> Tensor:
    """Of a few directions each, so that similarities are -1, 0 (of either sign) or 1."""
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    return axes[torch.randint(8, (rows,), generator=torch.Generator().manual_seed(seed))]


@pytest.mark.parametrize("make", [scattered, tied])
@pytest.mark.parametrize(("rows", "elements"), [(20, 1000), (8, 24), (3, 7), (1, 1)])
def test_neighbors_are_the_most_similar_rows_for_any_block(
    make: object, rows: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "_BLOCK_ROWS", rows)
    monkeypatch.setitem(knn._BLOCK_ELEMENTS, "cpu", elements)
    queries, bank = make(7, 0), make(20, 1)  # type: ignore[operator]
    for count in (1, 5, 20):
        similarities, indices = knn.neighbors(queries, bank, 20, count, ALONE)
        expected = dense(queries, bank, count)
        torch.testing.assert_close(similarities, expected[0])
        assert torch.equal(indices, expected[1])


def on_rank(session: Session, queries: Tensor, bank: Tensor) -> list[tuple[Tensor, Tensor]]:
    share = bank[shares.own(len(bank), session)]
    return [knn.neighbors(queries, share, len(bank), count, session) for count in (1, 5, 20)]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_find_what_one_process_does(world: int) -> None:
    for make, size in ((scattered, 20), (tied, 20), (tied, 3)):  # of 3 rows, four ranks have one, one, one and none
        queries, bank = make(7, 0), make(size, 1)
        for found in on_ranks(world, on_rank, queries, bank):
            for count, (similarities, indices) in zip((1, 5, 20), found, strict=True):
                expected = dense(queries, bank, count)
                torch.testing.assert_close(similarities, expected[0])
                assert torch.equal(indices, expected[1])


def test_no_more_neighbors_than_there_are() -> None:
    similarities, indices = knn.neighbors(torch.randn(4, 3), torch.randn(2, 3), 2, 20, ALONE)
    assert similarities.shape == indices.shape == (4, 2)


def test_on_a_gpu_50_000_queries_take_few_gigabytes_beside_the_features() -> None:
    """However large the bank is: three blocks of it show what any number takes."""
    with counted() as peak:
        queries, bank = torch.empty(50_000, 2048, device=CUDA), torch.empty(3 * knn._BLOCK_ROWS, 2048, device=CUDA)
        features = queries.nbytes + bank.nbytes
        knn.neighbors(queries, bank, len(bank), 20, Session(rank=0, world_size=1, device=CUDA))
    assert peak.gpu - features < 5 * GIB
    assert peak.host < 0.1 * GIB


def test_votes_are_weighted_by_similarity() -> None:
    similarities = torch.tensor([[0.9, 0.5, 0.4]])
    votes = knn.scores(similarities, torch.tensor([[1, 0, 0]]), classes=3, temperature=0.1)
    expected = [math.exp(5 - 9) + math.exp(4 - 9), 1.0, -math.inf]
    torch.testing.assert_close(votes, torch.tensor([expected]))


@pytest.mark.parametrize("temperature", [0.001, 1e-45, 1e-320])
def test_a_small_temperature_lets_the_nearest_decide(temperature: float) -> None:
    similarities = torch.tensor([[1.0, 0.99, 0.98], [-0.9, -0.91, -0.92]])
    votes = knn.scores(similarities, torch.tensor([[2, 0, 0], [1, 0, 0]]), classes=3, temperature=temperature)
    assert not votes.isnan().any()
    assert votes.argmax(dim=1).tolist() == [2, 1]


def test_a_class_without_a_vote_is_not_among_the_top_ones() -> None:
    votes = knn.scores(torch.tensor([[0.9, 0.5]] * 6), torch.tensor([[3, 1]] * 6), classes=6, temperature=0.1)
    assert knn.accuracy(votes, torch.arange(6), 5) == pytest.approx(2 / 6)
    assert knn.accuracy(votes, torch.arange(6)) == pytest.approx(1 / 6)


def test_accuracy_counts_the_top_k() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    labels = torch.tensor([1, 1, 0])
    assert knn.accuracy(scores, labels) == pytest.approx(1 / 3)
    assert knn.accuracy(scores, labels, 2) == pytest.approx(2 / 3)
    assert knn.accuracy(scores, labels, 5) == 1.0


def test_with_few_classes_every_one_is_among_the_top_ones() -> None:
    votes = knn.scores(torch.tensor([[0.9, 0.5]] * 4), torch.tensor([[3, 1]] * 4), classes=4, temperature=0.1)
    assert knn.accuracy(votes, torch.arange(4), 5) == 1.0
    assert knn.accuracy(votes, torch.arange(4), 3) == 0.5
