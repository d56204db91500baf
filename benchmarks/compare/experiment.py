"""An experiment of a sweep: its name, which says what its results depend on, its run by DVC, and its results in Git.

`dvc exp run --temp` runs it in a copy of the repository, so that the workspace stays as it is. One follows the other:
workers of DVC's queue race (treeverse/dvc #10673). Stages that ran before with the same code and parameters come from
DVC's run cache.
"""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.compare import speed, sweep
from benchmarks.compare.speed import Speed
from benchmarks.compare.sweep import Sweep
from simclr.check import PLUG_POINTS
from simclr.core import fingerprint, params_file, processor, signals
from simclr.core.errors import Stopped, UserError
from simclr.core.printable import one_line
from simclr.core.signals import Interruption
from simclr.data import converted
from simclr.training import recipe

_STAGES = ("fetch", "convert", "pretrain", "embed", "linear_eval")
"""Those whose results are compared: pictures are not."""
_REPORTING = ("convert", "embed", "linear_eval")
_SECONDS = 0.2
"""Between two looks at a run."""


class FailedError(Exception):
    """An experiment that ended without results; says why."""


@dataclass(frozen=True)
class Experiment:
    """A row of a sweep with one seed."""

    sweep: str
    row: str
    seed: int
    overrides: tuple[str, ...]
    identity: str
    """Ten digits for everything that decides the results: see `_identity`."""

    @property
    def name(self) -> str:
        return f"{self.sweep}-{self.row}-{self.seed}-{self.identity}"


@dataclass(frozen=True)
class Outcome:
    """Top-1 accuracies on test, in percent, and the speed of the pretraining, where this clone has its board."""

    linear: float
    knn: float
    augmented: float
    untrained: float
    raw_pixels: float
    speed: Speed | None


def plan(compared: Sweep, seeds: int) -> list[Experiment]:
    """The experiments of all rows: with seed 0, then with 1, ...

    Raises:
        UserError: the overrides of a row are refused; names the sweep and the row.
    """
    experiments = []
    for seed in range(seeds):
        for row, own in compared.rows.items():
            overrides = (*compared.common, *own, *(f"{key}={seed}" for key in sweep.SEEDS))
            values = sweep.values(overrides, f"{compared.name}: {row}")
            experiments.append(Experiment(compared.name, row, seed, overrides, _identity(values)))
    return experiments


def _identity(values: dict[str, Any]) -> str:
    """Of everything that decides the results: the code in use, comments aside, its parameters, the weights that it
    loads, and the images of a folder, by their sizes and times, or of a list, by their digests."""
    options = tuple(option.path for option in recipe.checked(values, str(params_file.FILE)).options)
    sections = {name: section for name, section in values.items() if name not in PLUG_POINTS}
    sections |= {path: values[package][name] for path in options for package, name in [path.split(".")]}
    source, folder = values["fetch"]["source"], Path(values["fetch"]["folder"])
    images = _files(folder) if source == "folder" else []
    weights = Path(values["methods"]["pretrained"]["file"]) if "methods.pretrained" in options else None
    read = [fingerprint.of_file(path) for path in (folder, weights) if path and path.is_file()]
    return fingerprint.of_values([sections, _code((f"sources.{source}", *options)), images, read])[:10]


@cache
def _code(options: tuple[str, ...]) -> list[str]:
    return [fingerprint.of_program(Path("stages", f"{stage}.py"), options) for stage in _STAGES]


def _files(folder: Path) -> list[tuple[str, int, int]]:
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns) for path, status in files]


def outcome(experiment: Experiment) -> Outcome:
    """The results of `experiment`: recorded ones, or else it is run.

    Raises:
        FailedError: DVC, or a stage, refused or failed.
        UserError: code, parameters or images have changed since the experiment was planned.
        Stopped: a signal; the stage that ran has kept its checkpoint.
    """
    recorded = _reference(experiment)
    if not recorded:
        _code.cache_clear()
        if _identity(sweep.values(experiment.overrides, experiment.name)) != experiment.identity:
            raise UserError(f"{experiment.name}: code, parameters or images have changed meanwhile; start again")
        _run(experiment)
        recorded = _reference(experiment)
    return _read(recorded)


def _reference(experiment: Experiment) -> str:
    """Git's reference to the results, under any commit, sweep and row; empty without any."""
    return _git("for-each-ref", "--count=1", "--format=%(refname)", f"refs/exps/*/*/*-{experiment.identity}").strip()


def _read(reference: str) -> Outcome:
    reports = {stage: json.loads(_git("show", f"{reference}:./reports/{stage}/metrics.json")) for stage in _REPORTING}
    lock = YAML(typ="safe", pure=True).load(_git("show", f"{reference}:./dvc.lock"))["stages"]["pretrain"]
    parameters = lock["params"]["params.yaml"]["pretrain"]
    batch = parameters["batch_size"]
    splits = converted.files_of(parameters["split"])
    samples = sum(reports["convert"][split]["images"] for split in splits) // batch * batch
    probes = reports["linear_eval"]
    if not probes:
        raise UserError("images without labels cannot be compared")
    return Outcome(
        linear=probes["pretrained"]["top1"],
        knn=reports["embed"]["knn_top1"],
        augmented=probes["augmented"]["top1"],
        untrained=probes["untrained"]["top1"],
        raw_pixels=probes["raw_pixels"]["top1"],
        speed=speed.of({out["path"]: out["md5"] for out in lock["outs"]}, samples),
    )


def _run(experiment: Experiment) -> None:
    overrides = [word for override in experiment.overrides for word in ("-S", override)]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", experiment.name, *overrides]
    # the section `processor` of params.yaml sets the first two, and stages run on the first Python of the PATH
    environment = {name: value for name, value in os.environ.items() if name not in (processor.CPU, processor.THREADS)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    log = Path("runs", experiment.name, "dvc.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file, signals.catch_signals(multi_process=True) as interruption:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, process_group=0
        )
        _wait(process, interruption)
    if interruption.number:
        raise Stopped(interruption.number, f" in {experiment.name}; the same command goes on from there")
    if process.returncode:
        raise FailedError(_reason(log))


def _wait(dvc: "subprocess.Popen[bytes]", interruption: Interruption) -> None:
    """Wait for the end of `dvc`; after an `interruption` have the stage stop that it runs, or is about to run.

    The stage alone is told: DVC, interrupted while it begins an experiment, would leave it to the next `dvc exp run`.
    """
    stopped: set[int] = set()
    while dvc.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            dvc.wait(_SECONDS)
        if interruption.number:
            interruption.acknowledge()
            for stage in _stages(dvc.pid) - stopped:
                stopped.add(stage)
                print("\ncompare: stops as soon as DVC has tidied up", file=sys.stderr, flush=True)
                with suppress(ProcessLookupError):
                    os.kill(stage, signal.SIGTERM)


def _stages(dvc: int) -> set[int]:
    """The processes that DVC runs a stage in: one, or none at the moment."""
    with suppress(OSError):  # one of them has just ended
        children = Path(f"/proc/{dvc}/task/{dvc}/children").read_text().split()
        return {int(child) for child in children if b"DVC_STAGE=" in Path(f"/proc/{child}/environ").read_bytes()}
    return set()


def _reason(log: Path) -> str:
    """Why a stage ended, or else DVC."""
    lines = re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace"))
    said = [line for line in lines if re.match(r"\w+: error: ", line)] or [
        line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")
    ]
    return f"{one_line(said[-1], 300) if said else 'no reason is told'} ({log})"


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout
