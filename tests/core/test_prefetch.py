import threading
import time
from collections.abc import Callable, Iterator

import pytest

from simclr.core import prefetch


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

    assert list(prefetch.prefetch(load, range(20), threads)) == [item * item for item in range(20)]
    assert list(prefetch.prefetch(load, [], threads)) == []
    assert running() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_items_are_loaded_while_one_is_worked_on_but_not_all_of_them(threads: int) -> None:
    taken: list[int] = []
    loaded: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = prefetch.prefetch(lambda item: loaded.append(item) or item, items(), threads)
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
    assert len(list(prefetch.prefetch(lambda _: together.wait(), range(6), threads=3))) == 6


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_comes_where_its_result_would(threads: int) -> None:
    def load(item: int) -> int:
        if item >= 4:
            raise ValueError(f"item {item}")
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="item 4"):
        seen.extend(prefetch.prefetch(load, range(100), threads))
    assert seen == [0, 1, 2, 3]
    assert running() == []


def test_an_exception_of_the_items_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(prefetch.prefetch(lambda item: item, items()))
    assert running() == []


def test_leaving_early_ends_the_threads() -> None:
    loaded: list[int] = []

    def load(item: int) -> int:
        time.sleep(0.01)
        loaded.append(item)
        return item

    for item in prefetch.prefetch(load, range(1000), threads=2):
        if item == 3:
            break
    assert running() == []
    count = len(loaded)
    assert count <= 6
    time.sleep(0.03)
    assert len(loaded) == count


def test_an_exception_in_the_loop_ends_the_threads() -> None:
    def work() -> None:
        for _ in prefetch.prefetch(lambda item: item, range(1000), threads=2):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        work()
    assert running() == []
