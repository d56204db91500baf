"""The provenance of results, in two files that DVC does not hash.

`reports/<stage>/run.json` is in Git beside the results. It names them by their MD5, as dvc.lock does, because DVC may
restore other results without it: readers compare the digests first. It contains everything that decides the results'
bytes, so that every machine with the same results writes the same file. Facts on the machine are in
`runs/<experiment>/<stage>/machine.json`, which Git ignores.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from simclr.core import fingerprint, processor, tables
from simclr.tracking import stage_digests, tensorboard

_BEGAN = time.monotonic()
_PACKAGES = (
    "ffcv", "matplotlib", "numba", "numpy", "opencv-python-headless", "pillow", "safetensors", "scikit-learn", "scipy",
    "torch", "torchvision",
)  # fmt: skip
_RESULTS = (":!reports", ":!dvc.lock", ":!benchmarks/results")  # what a run itself writes makes no tree dirty
_RUN, _MACHINE = "run.json", "machine.json"


def write(
    program: Path,
    outs: Iterable[Path],
    inputs: Mapping[str, str],
    options: Sequence[str] = (),
    device: torch.device | None = None,
    starts: Mapping[int, int] | None = None,
    machine: Mapping[str, Any] | None = None,
    sections: Sequence[str] = (),
) -> None:
    """Write both files for a stage at its end.

    run.json stays unchanged if it is about the same results, inputs, code and parameters.

    Args:
        program: the stage's file; its results are in reports/<stage> and in `outs`.
        outs: files or folders elsewhere.
        inputs: digests of other inputs, such as the data.
        options: the options in use, such as "losses.nt_xent", or "losses.*" for all that there are.
        device: torch's device; None if the stage does not use torch.
        starts: the number of processes from each step on at which the run started or resumed.
        machine: more facts on this run, for machine.json.
        sections: sections of params.yaml whose values are in use, such as "methods.simclr" without its code.
    """
    starts, reports = starts or {0: 1}, Path("reports") / program.stem
    if device is not None:
        sections = [*sections, "processor"]
    reports.mkdir(parents=True, exist_ok=True)
    digests = {**stage_digests.of(program, options, sections), **inputs}
    out_digests = {path.as_posix(): fingerprint.of_out(path) for path in sorted([*outs, *_results(reports)])}
    used = {"options": " ".join(options)} | ({"sections": " ".join(sections)} if sections else {})
    if _read_record(reports / _RUN) != (out_digests, used, digests):
        record: dict[str, Any] = {"outs": out_digests, **used}
        record |= {"fingerprints": digests, "versions": versions(device)}
        if device is not None:
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
            record |= {
                "device": name,
                "instructions": processor.mode(),
                "threads": torch.get_num_threads(),
                "processes_from_step": _process_counts(starts),
            }
        tables.write_json(reports / _RUN, record)
    tables.write_json(
        tensorboard.run_folder(reports.name) / _MACHINE,
        {
            "outs": out_digests,
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


def versions(device: torch.device | None = None) -> dict[str, str]:
    """Versions of the packages that decide bytes, "absent" if not installed, and of CUDA and cuDNN with a GPU."""
    versions_by_package = {name: _version(name) for name in _PACKAGES}
    if device is not None and device.type == "cuda":
        versions_by_package |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return versions_by_package


def hardware(device: torch.device | None = None) -> dict[str, Any]:
    """The processor's name, the number of its cores, and the GPU's name if there is one."""
    machine: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count() or 1}
    if device is not None and device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    return machine


def git(who: str) -> dict[str, str | bool]:
    """The commit that is checked out, and whether the tree differs from it; or the reason why they are unknown.

    If Git refuses to answer in a repository, such as another user's, print the reason on stderr after the name `who`.
    """
    in_english = {**os.environ, "LC_ALL": "C"}
    try:
        revision, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", *command], capture_output=True, text=True, check=True, env=in_english
            ).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", ".", *_RESULTS))
        )
    except OSError as error:
        return {"revision": "", "reason": f"git: {error.strerror}"}
    except subprocess.CalledProcessError as error:
        reason = " ".join(str(error.stderr).split()) or str(error)
        if "not a git repository" not in reason:
            print(f"{who}: the revision is not recorded: {reason}", file=sys.stderr)  # noqa: T201
        return {"revision": "", "reason": reason}
    return {"revision": revision.strip(), "dirty": bool(changes)}


def _results(reports: Path) -> list[Path]:
    return [path for path in reports.iterdir() if path.name != _RUN and not path.name.startswith(".")]


def _read_record(path: Path) -> Any:
    """Of a run.json the digests of the results, what the stage used, and the digests of that and of its inputs; None if
    it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        used = {name: content[name] for name in ("options", "sections") if name in content}
        return content["outs"], used, content["fingerprints"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _process_counts(starts: Mapping[int, int]) -> dict[str, int]:
    """`starts` without the steps at which the number of processes stayed the same."""
    counts: dict[str, int] = {}
    for step, world in starts.items():
        if world not in list(counts.values())[-1:]:
            counts[str(step)] = world
    return counts


def _version(package: str) -> str:
    """The public version of `package`, without a build's name such as "+cpu"."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    """The processor's name by /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
