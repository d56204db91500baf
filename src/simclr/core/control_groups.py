"""What the control groups of this process, such as a container's, allow it (cgroups(7), versions 1 and 2)."""

import math
from contextlib import suppress
from pathlib import Path


def folders(controller: str, root: Path) -> list[Path]:
    """The folders in /sys/fs/cgroup of this process's group for `controller`, such as "cpu", and of the groups around
    it. `root` is where /proc and /sys are."""
    groups: list[Path] = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                base = root / "sys/fs/cgroup" / (controller if controllers else "")
                inside = base / group.lstrip("/")
                groups += [inside, *(folder for folder in inside.parents if folder.is_relative_to(base))]
    return groups


def cores(root: Path = Path("/")) -> float:
    """The cores that the quotas amount to (cpu.max; in version 1 cpu.cfs_quota_us); infinite without one."""
    return min(map(_quota, folders("cpu", root)), default=math.inf)


def memory(root: Path = Path("/")) -> float:
    """The bytes that the limits allow (memory.max; in version 1 memory.limit_in_bytes); infinite without one."""
    return min(map(_limit, folders("memory", root)), default=math.inf)


def _quota(group: Path) -> float:
    with suppress(OSError, ValueError):
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:  # "max", or -1, is no limit
            return int(quota) / int(period)
    return math.inf


def _limit(group: Path) -> float:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no limit
            return int((group / name).read_text())
    return math.inf
