"""DVC in a job of SLURM that was started again: which lock it finds, and which it leaves alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT

RUNNING = 1
"""The number of a process that every machine has."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one stage."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "scripts/slurm").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/slurm/job-dvc", folder / "scripts/slurm")
    for command in ("git init -q", "dvc init -q", "dvc stage add -q -n a -o out touch out"):
        done = subprocess.run(command.split(), cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path) -> Path:
    """With one stage, whose output a dvc with the number of a running process has locked."""
    folder = Path(shutil.copytree(template, tmp_path / "repository"))
    lock(folder, RUNNING)
    return folder


def environment(**own: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"} | own


def lock(folder: Path, *processes: int) -> None:
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    paths = [str(folder / name) for name in ("out", "other", "third")]
    holders = {path: {"pid": number, "cmd": "dvc repro"} for path, number in zip(paths, processes, strict=False)}
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps({"write": holders, "read": {}}))


def repro(folder: Path, **own: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["scripts/slurm/job-dvc", "repro"], cwd=folder, env=environment(**own), capture_output=True, text=True
    )


def test_a_job_that_is_started_again_removes_the_lock_of_its_attempt_before(repository: Path) -> None:
    (repository / ".dvc/tmp/job-7").write_text(f"{RUNNING}\n")
    done = repro(repository, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0, done.stderr
    assert (repository / "out").exists()
    said = f"job-dvc: .dvc/tmp/rwlock is removed, which process {RUNNING} of this job's attempt before has left\n"
    assert done.stderr.startswith(said)
    assert int((repository / ".dvc/tmp/job-7").read_text()) != RUNNING


LEFT_ALONE = {  # the dvc of the attempt before, the holders of the lock, how often the job was started again
    "the first attempt": (RUNNING, [RUNNING], "0"),
    "of another dvc": (999_999, [RUNNING], "1"),
    "of another dvc too": (RUNNING, [RUNNING, os.getpid()], "1"),
    "an attempt without a dvc": (None, [RUNNING], "2"),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_any_other_lock_stays(case: str, repository: Path) -> None:
    earlier, holders, restarts = LEFT_ALONE[case]
    lock(repository, *holders)
    if earlier is not None:
        (repository / ".dvc/tmp/job-7").write_text(f"{earlier}\n")
    done = repro(repository, SLURM_RESTART_COUNT=restarts)
    assert done.returncode == 255
    assert "is busy, it is being blocked by" in done.stderr
    assert "job-dvc" not in done.stderr


@pytest.mark.parametrize("own", [{}, {"SLURM_RESTART_COUNT": "1"}])
def test_the_number_of_the_dvc_is_that_of_its_lock(own: dict[str, str], repository: Path) -> None:
    (repository / ".dvc/tmp/rwlock").unlink()
    (repository / "dvc.yaml").write_text("stages: {a: {cmd: cp .dvc/tmp/rwlock out, outs: [out]}}")
    done = repro(repository, **own)
    assert done.returncode == 0, done.stderr
    (holder,) = json.loads((repository / "out").read_text())["write"].values()
    assert holder["pid"] == int((repository / ".dvc/tmp/job-7").read_text())


@pytest.mark.parametrize("name", ["job-dvc", "run.sbatch", "requeue.sbatch", "sweep.sbatch"])
def test_outside_a_job_a_script_says_so(name: str, repository: Path) -> None:
    for script in (ROOT / "scripts/slurm").iterdir():
        shutil.copy(script, repository / "scripts/slurm")
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    done = subprocess.run(
        ["bash", f"scripts/slurm/{name}", "repro"], cwd=repository, env=outside, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"(job-dvc: )?this is no job of (SLURM|an array)[:;] [\w ]+\n", done.stderr)
    assert not (repository / "out").exists()
