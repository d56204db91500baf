"""What results came from, in two files, of which DVC hashes neither.

`reports/<stage>/run.json` stands in Git beside the results. It names them by their MD5, as dvc.lock does, since DVC may
bring back other results and leave the file as it lies: whoever reads it compares them first. It holds what decides
their bytes, so that every machine that makes the same results writes the same file. What the machine alone knows
is in `runs/<experiment>/<stage>/machine.json`, which Git ignores.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from simclr.core import fingerprint, params, processor, tables
from simclr.tracking import tensorboard

_BEGAN = time.monotonic()
_PACKAGES = (
    "ffcv", "matplotlib", "numba", "numpy", "opencv-python-headless", "pillow", "safetensors", "scikit-learn", "scipy",
    "torch", "torchvision",
)  # fmt: skip
_OWN_DOING = (":!reports", ":!dvc.lock")  # what a run changes is no reason to call it dirty
_RUN, _MACHINE = "run.json", "machine.json"


def write(
    program: Path,
    outs: Iterable[Path],
    inputs: Mapping[str, str],
    options: Sequence[str] = (),
    device: torch.device | None = None,
    starts: Mapping[int, int] | None = None,
    machine: Mapping[str, Any] | None = None,
) -> None:
    """Write both files for a stage at its end.

    run.json stays as it is where it speaks of the same results, code and parameters already.

    Args:
        program: the stage's file; its results are in reports/<stage> and in `outs`.
        outs: files or folders elsewhere.
        inputs: digests of what else went in: the data, ...
        options: that the stage chose, such as "losses.nt_xent".
        device: the one that torch ran on; None if it did not.
        starts: the steps at which the run began or went on, and how many processes shared it from there.
        machine: what else is worth knowing of this run, for machine.json.
    """
    starts, reports = starts or {0: 1}, Path("reports") / program.stem
    reports.mkdir(parents=True, exist_ok=True)
    of_stage = digests(program, options)
    made = {path.as_posix(): fingerprint.of_out(path) for path in sorted([*outs, *_results(reports)])}
    if _recorded(reports / _RUN) != (made, of_stage):
        record: dict[str, Any] = {"outs": made, "options": " ".join(options)}
        record |= {"fingerprints": {**of_stage, **inputs}, "versions": versions(device)}
        if device is not None:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            record |= {
                "device": name,
                "instructions": processor.mode(),
                "threads": torch.get_num_threads(),
                "processes_from_step": _changes(starts),
            }
        tables.write_json(reports / _RUN, record)
    tables.write_json(
        tensorboard.run_folder(reports.name) / _MACHINE,
        {
            "outs": made,
            "git": git(reports.name),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": time.monotonic() - _BEGAN,
            "starts": {str(step): world for step, world in starts.items()},
            "python": platform.python_version(),
            "dvc": _version("dvc"),
            **hardware(device),
            **(machine or {}),
        },
    )


def digests(program: Path, options: Sequence[str]) -> dict[str, str]:
    """Of the code that the stage `program` runs with its `options`, and of its section of params.yaml and theirs."""
    values = params.read()
    sections = {name: reduce(_get, name.split("."), values) for name in (program.stem, "processor", *options)}
    return {"code": fingerprint.of_program(program, options), "parameters": fingerprint.of_values(sections)}


def _get(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, dict) else None


def versions(device: torch.device | None = None) -> dict[str, str]:
    """Of the packages that decide bytes, "absent" for what is not installed, and of what drives a GPU."""
    found = {name: _version(name) for name in _PACKAGES}
    if device is not None and device.type == "cuda":
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found


def hardware(device: torch.device | None = None) -> dict[str, Any]:
    """The processor's name, the number of its cores, and the GPU's name if there is one."""
    found: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count() or 1}
    if device is not None and device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def git(who: str) -> dict[str, str | bool]:
    """The commit that is checked out, and whether something differs from it; or why that is not known.

    Where Git does not answer although there is a repository, as of one that is another user's, `who` says so on stderr.
    """
    in_english = {**os.environ, "LC_ALL": "C"}
    try:
        revision, changes = (
            subprocess.run(["git", *command], capture_output=True, text=True, check=True, env=in_english).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".", *_OWN_DOING))
        )
    except OSError as error:
        return {"revision": "", "reason": f"git: {error.strerror}"}
    except subprocess.CalledProcessError as error:
        reason = " ".join(str(error.stderr).split())
        if "not a git repository" not in reason:
            print(f"{who}: the revision is not recorded: {reason}", file=sys.stderr)  # noqa: T201
        return {"revision": "", "reason": reason}
    return {"revision": revision.strip(), "dirty": bool(changes)}


def _results(reports: Path) -> list[Path]:
    return [path for path in reports.iterdir() if path.name != _RUN and not path.name.startswith(".")]


def _recorded(path: Path) -> Any:
    """The results, and the digests of the stage, that a run.json speaks of; None if there is none, or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        return content["outs"], {name: content["fingerprints"][name] for name in ("code", "parameters")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changes(starts: Mapping[int, int]) -> dict[str, int]:
    """`starts` without those that changed nothing: to be killed does not change a result."""
    kept: dict[str, int] = {}
    for step, world in starts.items():
        if world not in list(kept.values())[-1:]:
            kept[str(step)] = world
    return kept


def _version(package: str) -> str:
    """Its public version: "+cpu" and the like name a build."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The processor's name as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
