"""Rows by several threads against rows one by one."""

import threading

import numpy as np
import pytest

from simclr import parallel


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 100])
def test_every_row_is_worked_on_once(rows: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "THREADS", threads)
    values, out = np.arange(rows), np.full(rows, -1)

    def add(values: np.ndarray, more: np.ndarray, out: np.ndarray) -> None:
        out += 1 + values + more[:, 0]

    parallel.crew("test")(add, values, np.stack([values, values], axis=1), out)
    assert out.tolist() == [2 * row for row in range(rows)]


def test_all_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "THREADS", 3)
    together = threading.Barrier(3, timeout=10)
    parallel.crew("test")(lambda _: together.wait(), np.arange(3))


def test_an_error_is_raised_here() -> None:
    def fail(_: np.ndarray) -> None:
        raise ValueError("row")

    with pytest.raises(ValueError, match="row"):
        parallel.crew("test")(fail, np.arange(2))
