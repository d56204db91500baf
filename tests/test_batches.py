import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from simclr import batches


def flat(parts: list[batches.Indices]) -> list[int]:
    return np.concatenate(parts).tolist()


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("count", "batch_size"), [(64, 16), (70, 16), (71, 12), (16, 16), (5, 1)])
def test_the_global_batches_are_the_same_for_any_number_of_ranks(count: int, batch_size: int, drop_last: bool) -> None:
    alone = batches.shuffled(count, batch_size, seed=3, epoch=2, drop_last=drop_last)
    for world in (2, 4):
        ranks = [batches.shuffled(count, batch_size, 3, 2, rank, world, drop_last=drop_last) for rank in range(world)]
        assert {len(own) for own in ranks} == {len(alone)}
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert flat(parts) == whole.tolist()
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", range(1, 9))
def test_parts_are_equal_where_the_number_of_ranks_divides_the_batch(world: int) -> None:
    ranks = [batches.shuffled(70, 12, 0, 0, rank, world, drop_last=True) for rank in range(world)]
    for parts in zip(*ranks, strict=True):
        assert (len({len(part) for part in parts}) == 1) == (world in (1, 2, 3, 4, 6))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_an_epoch_can_go_on_in_the_middle_with_any_number_of_ranks(before: int, after: int, drop_last: bool) -> None:
    def epoch(world: int) -> list[list[int]]:
        ranks = [batches.shuffled(71, 12, 3, 2, rank, world, drop_last=drop_last) for rank in range(world)]
        return [flat(list(parts)) for parts in zip(*ranks, strict=True)]

    whole = [batch.tolist() for batch in batches.shuffled(71, 12, 3, 2, drop_last=drop_last)]
    assert epoch(before)[:3] + epoch(after)[3:] == whole


def test_an_epoch_has_every_sample_once() -> None:
    kept = batches.shuffled(70, 16, seed=0, epoch=0, drop_last=False)
    assert [len(batch) for batch in kept] == [16, 16, 16, 16, 6]
    assert sorted(flat(kept)) == list(range(70))
    dropped = batches.shuffled(70, 16, seed=0, epoch=0, drop_last=True)
    assert [batch.tolist() for batch in dropped] == [batch.tolist() for batch in kept[:4]]


def test_batches_larger_than_the_data() -> None:
    assert batches.shuffled(5, 8, seed=0, epoch=0, drop_last=True) == []
    (only,) = batches.shuffled(5, 8, seed=0, epoch=0, drop_last=False)
    assert sorted(only.tolist()) == [0, 1, 2, 3, 4]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {}
    for seed in range(3):
        for epoch in range(3):
            first, again = (flat(batches.shuffled(50, 8, seed, epoch, drop_last=False)) for _ in range(2))
            assert first == again
            orders[tuple(first)] = seed, epoch
    assert len(orders) == 9
    assert tuple(range(50)) not in orders


def test_in_order() -> None:
    found = batches.in_order(np.array([4, 2, 9, 9, 7]), 2)
    assert [batch.tolist() for batch in found] == [[4, 2], [9, 9], [7]]
    assert [batch.tolist() for batch in batches.in_order(np.arange(4), 2)] == [[0, 1], [2, 3]]
    assert batches.in_order(np.arange(0), 2) == []


# prefetched


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def until(condition: Callable[[], bool]) -> None:
    """Wait for other threads, ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads: int) -> None:
    def load(item: int) -> int:
        time.sleep(0.002 * (item % 3))  # later items are ready earlier
        return item * item

    assert list(batches.prefetched(load, range(20), threads)) == [item * item for item in range(20)]
    assert list(batches.prefetched(load, [], threads)) == []
    assert running() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_loaded_while_one_is_worked_on_but_not_all_of_them(threads: int) -> None:
    taken: list[int] = []
    loaded: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = batches.prefetched(lambda item: loaded.append(item) or item, items(), threads)
    assert taken == []
    for expected in range(20):
        assert next(results) == expected
        until(lambda expected=expected: len(loaded) == expected + 1 + threads)
        time.sleep(0.002)
        assert len(loaded) == len(taken) == expected + 1 + threads
    results.close()
    assert len(taken) == 20 + threads


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    assert len(list(batches.prefetched(lambda _: together.wait(), range(6), threads=3))) == 6


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_comes_where_its_result_would(threads: int) -> None:
    def load(item: int) -> int:
        if item >= 4:
            raise ValueError(f"item {item}")
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="item 4"):
        seen.extend(batches.prefetched(load, range(100), threads))
    assert seen == [0, 1, 2, 3]
    assert running() == []


def test_an_exception_of_the_items_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(batches.prefetched(lambda item: item, items()))
    assert running() == []


def test_leaving_early_ends_the_threads() -> None:
    loaded: list[int] = []

    def load(item: int) -> int:
        time.sleep(0.01)
        loaded.append(item)
        return item

    for item in batches.prefetched(load, range(1000), threads=2):
        if item == 3:
            break
    assert running() == []
    count = len(loaded)
    assert count <= 6
    time.sleep(0.03)
    assert len(loaded) == count


def test_an_exception_in_the_loop_ends_the_threads() -> None:
    def work() -> None:
        for _ in batches.prefetched(lambda item: item, range(1000), threads=2):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        work()
    assert running() == []
