"""What a run was: the versions, the revision and the machine behind its results, in a file beside its metrics.

DVC does not hash the file, because it differs where results do not.
"""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "dvc", "ffcv", "numba", "numpy", "opencv-python-headless", "pillow", "safetensors", "scikit-learn", "torch",
    "torchvision",
)  # fmt: skip
_OWN_DOING = (":!reports", ":!dvc.lock")  # what a run changes is no reason to call it dirty


def record(fingerprints: dict[str, str], device: torch.device | None = None, processes: int = 1) -> dict[str, Any]:
    """The record of this process's run: nested, for `tables.write_json`.

    Args:
        fingerprints: digests of what went in: the parameters, the data, ...
        device: the one that torch ran on; None if it did not.
        processes: how many shared the work.
    """
    versions = {name: version(name) for name in _PACKAGES}
    machine: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count() or 1}
    if device is not None:
        machine |= {"device": device.type, "processes": processes, "threads": torch.get_num_threads()}
        if device.type == "cuda":
            machine["gpu"] = torch.cuda.get_device_name(device)
            versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return {
        "git": _git(),
        "fingerprints": fingerprints,
        "versions": {"python": platform.python_version(), **versions},
        "machine": machine,
    }


def _git() -> dict[str, str | bool]:
    """The commit that is checked out, and whether something differs from it; without Git an empty revision."""
    try:
        revision, changes = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".", *_OWN_DOING))
        )
    except (OSError, subprocess.CalledProcessError):
        return {"revision": "", "dirty": True}
    return {"revision": revision, "dirty": bool(changes)}


def _cpu() -> str:
    """The processor's name as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
