"""Rows by several threads against rows one by one."""

import os
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest

from simclr.core import thread_pool


@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 100])
def test_every_row_is_worked_on_once(rows: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "THREADS", threads)
    values, out = np.arange(rows), np.full(rows, -1)

    def add(values: np.ndarray, more: np.ndarray, out: np.ndarray) -> None:
        out += 1 + values + more[:, 0]

    thread_pool.row_pool("test")(add, values, np.stack([values, values], axis=1), out)
    assert out.tolist() == [2 * row for row in range(rows)]


def test_all_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "THREADS", 3)
    together = threading.Barrier(3, timeout=10)
    thread_pool.row_pool("test")(lambda _: together.wait(), np.arange(3))


def test_an_error_is_raised_here() -> None:
    def fail(_: np.ndarray) -> None:
        raise ValueError("row")

    with pytest.raises(ValueError, match="row"):
        thread_pool.row_pool("test")(fail, np.arange(2))


GROUPS: dict[str, tuple[str, dict[str, str], float]] = {  # /proc/self/cgroup, files in /sys/fs/cgroup, cores of 8
    "no limit": ("0::/user.slice/a.scope", {"user.slice/a.scope/cpu.max": "max 100000"}, 8),
    "a container": ("0::/", {"cpu.max": "250000 100000"}, 2),
    "of a group around it": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    "less than a core": ("0::/", {"cpu.max": "50000 100000"}, 1),
    "more than there are": ("0::/", {"cpu.max": "6400000 100000"}, 8),
    "version 1": (
        "4:memory:/x\n3:cpu,cpuacct:/x",
        {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000", "memory/x/cpu.max": "1 100000"},
        4,
    ),
    "version 1, in a container": (
        "3:cpuacct,cpu:/docker/x",
        {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"},
        5,
    ),
    "version 1, no limit": ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    "none": ("2:memory:/", {}, 8),
    "damaged": ("0::/", {"cpu.max": "many"}, 8),
}


@pytest.mark.parametrize("name", GROUPS)
def test_cores_are_those_that_the_control_groups_allow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, files, expected = GROUPS[name]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for path, content in (
        {"proc/self/cgroup": lines} | {f"sys/fs/cgroup/{path}": files[path] for path in files}
    ).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content + "\n")
    assert thread_pool.cores(tmp_path) == expected


def test_without_control_groups_all_cores_count(tmp_path: Path) -> None:
    assert thread_pool.cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("gpus", "processes", "threads"), [(0, 1, 16), (1, 1, 15), (4, 4, 3), (0, 4, 4), (8, 16, 1)])
def test_processes_share_the_cores_and_keep_one_each_for_their_gpu(
    gpus: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert runpy.run_path(thread_pool.__file__)["THREADS"] == min(threads, thread_pool.cores())
