import numpy as np
import pytest

from simclr.data import sampling


def flat(parts: list[sampling.Indices]) -> list[int]:
    return np.concatenate(parts).tolist()


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (70, 16), (71, 12), (16, 16), (5, 1)])
def test_the_global_batches_are_the_same_for_any_number_of_ranks(count: int, batch_size: int, drop_last: bool) -> None:
    alone = sampling.shuffled_batches(count, batch_size, seed=3, epoch=2, drop_last=drop_last)
    for world in (2, 4):
        ranks = [
            sampling.shuffled_batches(count, batch_size, 3, 2, rank, world, drop_last=drop_last)
            for rank in range(world)
        ]
        assert {len(own) for own in ranks} == {len(alone)}
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert flat(parts) == whole.tolist()
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", range(1, 9))
def test_parts_are_equal_where_the_number_of_ranks_divides_the_batch(world: int) -> None:
    ranks = [sampling.shuffled_batches(70, 12, 0, 0, rank, world, drop_last=True) for rank in range(world)]
    for parts in zip(*ranks, strict=True):
        assert (len({len(part) for part in parts}) == 1) == (world in (1, 2, 3, 4, 6))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_an_epoch_can_go_on_in_the_middle_with_any_number_of_ranks(before: int, after: int, drop_last: bool) -> None:
    def epoch(world: int) -> list[list[int]]:
        ranks = [sampling.shuffled_batches(71, 12, 3, 2, rank, world, drop_last=drop_last) for rank in range(world)]
        return [flat(list(parts)) for parts in zip(*ranks, strict=True)]

    whole = [batch.tolist() for batch in sampling.shuffled_batches(71, 12, 3, 2, drop_last=drop_last)]
    assert epoch(before)[:3] + epoch(after)[3:] == whole


def test_an_epoch_has_every_sample_once() -> None:
    kept = sampling.shuffled_batches(70, 16, seed=0, epoch=0, drop_last=False)
    assert [len(batch) for batch in kept] == [16, 16, 16, 16, 6]
    assert sorted(flat(kept)) == list(range(70))
    dropped = sampling.shuffled_batches(70, 16, seed=0, epoch=0, drop_last=True)
    assert [batch.tolist() for batch in dropped] == [batch.tolist() for batch in kept[:4]]


def test_batches_larger_than_the_data() -> None:
    assert sampling.shuffled_batches(5, 8, seed=0, epoch=0, drop_last=True) == []
    (only,) = sampling.shuffled_batches(5, 8, seed=0, epoch=0, drop_last=False)
    assert sorted(only.tolist()) == [0, 1, 2, 3, 4]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {}
    for seed in range(3):
        for epoch in range(3):
            first, again = (flat(sampling.shuffled_batches(50, 8, seed, epoch, drop_last=False)) for _ in range(2))
            assert first == again
            orders[tuple(first)] = seed, epoch
    assert len(orders) == 9
    assert tuple(range(50)) not in orders


@pytest.mark.parametrize(("count", "window"), [(1000, 128), (1003, 100), (40, 64), (7, 2)])
def test_a_window_holds_few_runs_of_neighbors(count: int, window: int) -> None:
    order = sampling.windowed_permutation(count, window, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(count))
    for start in range(0, count, window):
        held = order[start : start + window]
        assert (
            len(set((held // 16).tolist())) <= -(-len(held) // 16) + 2
        )  # one cut at either end, and the last, shorter
        assert len(held) < 16 or np.abs(np.diff(held)).max() > 1  # shuffled
    starts = order[::window] // 16
    assert count < 1000 or np.abs(np.diff(starts)).max() > 2 * window / 16  # from all over the file


def test_the_order_of_windows_is_that_of_the_seed_and_the_epoch() -> None:
    orders = [sampling.windowed_permutation(200, 64, *key).tolist() for key in ((0, 1), (0, 1), (0, 2), (1, 1))]
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders))) == 3
    batches = sampling.shuffled_batches(200, 8, 0, 1, drop_last=False, window=64)
    assert flat(batches) == orders[0]
    ranks = [sampling.shuffled_batches(200, 8, 0, 1, rank, 2, drop_last=False, window=64) for rank in range(2)]
    assert [flat(list(parts)) for parts in zip(*ranks, strict=True)] == [batch.tolist() for batch in batches]


def test_in_order() -> None:
    found = sampling.sequential_batches(np.array([4, 2, 9, 9, 7]), 2)
    assert [batch.tolist() for batch in found] == [[4, 2], [9, 9], [7]]
    assert [batch.tolist() for batch in sampling.sequential_batches(np.arange(4), 2)] == [[0, 1], [2, 3]]
    assert sampling.sequential_batches(np.arange(0), 2) == []
