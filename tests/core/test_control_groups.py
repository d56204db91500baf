"""What groups allow; for cores see test_thread_pool."""

import math
from pathlib import Path

import pytest

from simclr.core import control_groups

LIMITS: dict[str, tuple[str, dict[str, str], float]] = {  # /proc/self/cgroup, files in /sys/fs/cgroup, bytes
    "no limit": ("0::/a", {"a/memory.max": "max"}, math.inf),
    "a container": ("0::/", {"memory.max": "1000"}, 1000),
    "of a group around it": ("0::/a/b", {"a/b/memory.max": "3000", "a/memory.max": "2000"}, 2000),
    "version 1": ("4:memory:/x\n3:cpu:/y", {"memory/x/memory.limit_in_bytes": "5000"}, 5000),
    "damaged": ("0::/", {"memory.max": "many"}, math.inf),
    "none": ("3:cpu:/", {}, math.inf),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_memory_is_what_the_control_groups_allow(name: str, tmp_path: Path) -> None:
    lines, files, expected = LIMITS[name]
    paths = {"proc/self/cgroup": lines} | {f"sys/fs/cgroup/{path}": files[path] for path in files}
    for path, content in paths.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content + "\n")
    assert control_groups.memory(tmp_path) == expected


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert control_groups.memory(tmp_path) == math.inf
    assert control_groups.cores(tmp_path) == math.inf
