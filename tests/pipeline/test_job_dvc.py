"""DVC in a job of SLURM: its check of parameters, and of a job that was started again the lock it finds."""

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
    (folder / "params.yaml").write_text("a: 1\n")
    (folder / "stages").mkdir()
    (folder / "stages/check.py").write_text("import sys; print(sys.argv)")
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


def lock(folder: Path, writing: int, *reading: int) -> None:
    """Have `out` locked by the process `writing`, and what it is made from by those `reading`."""
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    writer, *readers = ({"pid": number, "cmd": "dvc repro"} for number in (writing, *reading))
    content = {"write": {str(folder / "out"): writer}, "read": {str(folder / "source"): readers} if readers else {}}
    (folder / ".dvc/tmp/rwlock").write_text(json.dumps(content))


def repro(folder: Path, *options: str, **own: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["scripts/slurm/job-dvc", "repro", *options], cwd=folder, env=environment(**own), capture_output=True, text=True
    )


REMOVED = "job-dvc: .dvc/tmp/rwlock: removed what this job's attempt before has left\n"


@pytest.mark.parametrize("others", [[], [os.getpid(), 999_999]])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_job_that_is_started_again_removes_the_lock_of_its_attempt_before(
    guarded: bool, others: list[int], repository: Path
) -> None:
    """And no entry of another dvc, alive or killed: DVC itself leaves those of a killed one on what no stage writes."""
    lock(repository, RUNNING, RUNNING, *others)
    if guarded:
        (repository / ".dvc/tmp/rwlock.lock").touch()
    (repository / ".dvc/tmp/job-7").write_text(f"{RUNNING}\n")
    done = repro(repository, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0, done.stderr
    assert (repository / "out").exists()
    assert done.stderr.startswith(REMOVED)
    left = json.loads((repository / ".dvc/tmp/rwlock").read_text())["read"]
    assert [holder["pid"] for holder in left.get(str(repository / "source"), [])] == others
    assert int((repository / ".dvc/tmp/job-7").read_text()) != RUNNING


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_lock_of_one_kind_is_released_too(kind: str, repository: Path) -> None:
    """DVC leaves the other out, or takes it for empty."""
    holder = {"pid": RUNNING, "cmd": "dvc repro"}
    entries = {str(repository / "out"): holder if kind == "write" else [holder]}
    (repository / ".dvc/tmp/rwlock").write_text(json.dumps({kind: entries}))
    (repository / ".dvc/tmp/job-7").write_text(f"{RUNNING}\n")
    done = repro(repository, SLURM_RESTART_COUNT="1")
    assert (done.returncode, done.stderr.startswith(REMOVED)) == (0, True)


def test_another_dvc_that_writes_is_left_to_dvc(repository: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as alive:
        lock(repository, alive.pid, RUNNING)
        (repository / ".dvc/tmp/job-7").write_text(f"{RUNNING}\n")
        done = repro(repository, SLURM_RESTART_COUNT="1")
        alive.kill()
    assert done.returncode == 255
    assert done.stderr.startswith(REMOVED)
    assert "is busy, it is being blocked by" in done.stderr
    assert json.loads((repository / ".dvc/tmp/rwlock").read_text())["write"]


def test_a_program_whose_path_says_dvc_is_none(repository: Path) -> None:
    """It has the number of the dvc that ended."""
    sleep = repository / "dvc-project/sleep"
    sleep.parent.mkdir()
    sleep.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([sleep, "60"]) as alive:
        lock(repository, alive.pid)
        (repository / ".dvc/tmp/job-7").write_text(f"{alive.pid}\n")
        done = repro(repository, SLURM_RESTART_COUNT="1")
        alive.kill()
    assert (done.returncode, done.stderr.startswith(REMOVED)) == (0, True)


def test_a_dvc_that_still_runs_keeps_its_lock(repository: Path) -> None:
    with subprocess.Popen(["bash", "-c", "read", "dvc"], stdin=subprocess.PIPE) as alive:
        lock(repository, alive.pid)
        (repository / ".dvc/tmp/job-7").write_text(f"{alive.pid}\n")
        done = repro(repository, SLURM_RESTART_COUNT="1")
        alive.communicate()
    assert done.returncode == 255
    assert "job-dvc" not in done.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"write": []}', '{"write": {"out": 3}, "read": {}}'])
def test_a_damaged_lock_is_left_to_dvc(content: str, repository: Path) -> None:
    (repository / ".dvc/tmp/rwlock").write_text(content)
    (repository / ".dvc/tmp/job-7").write_text(f"{RUNNING}\n")
    done = repro(repository, SLURM_RESTART_COUNT="1")
    assert re.match("ERROR: .*(rwlock|RWLock)", done.stderr)
    assert (repository / ".dvc/tmp/rwlock").read_text() == content


LEFT_ALONE = {  # the dvc of the attempt before, the one that holds the lock, how often the job was started again
    "the first attempt": (RUNNING, RUNNING, "0"),
    "of another dvc": (999_999, RUNNING, "1"),
    "an attempt without a dvc": (None, RUNNING, "2"),
    "no number of attempts": (RUNNING, RUNNING, ""),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_any_other_lock_stays(case: str, repository: Path) -> None:
    earlier, holder, restarts = LEFT_ALONE[case]
    lock(repository, holder)
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


def test_a_wrong_value_ends_it_before_dvc_removes_anything(repository: Path) -> None:
    (repository / "stages/check.py").write_text("import sys; sys.exit(f'repro: error: {sys.argv[1:]}')")
    (repository / ".dvc/tmp/rwlock").unlink()
    done = repro(repository)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "repro: error: ['repro']\n")
    assert repro(repository, "--single-item", "a").returncode == 0  # which need not see the images


def test_without_dvc_it_says_so(repository: Path) -> None:
    (repository / "bin").mkdir()
    (repository / "bin/python3").symlink_to(sys.executable)
    done = repro(repository, PATH=f"{repository}/bin:/usr/bin:/bin")
    assert (done.returncode, done.stderr) == (1, "job-dvc: dvc: No such file or directory\n")


def test_parameters_of_a_job_that_is_started_again_are_those_it_began_with(repository: Path) -> None:
    (repository / ".dvc/tmp/rwlock").unlink()
    assert repro(repository).returncode == 0
    assert repro(repository, SLURM_RESTART_COUNT="1").returncode == 0
    (repository / "params.yaml").write_text("a: 2\n")
    done = repro(repository, SLURM_RESTART_COUNT="2")
    said = (
        "job-dvc: params.yaml has changed since the job began with .dvc/tmp/job-7.yaml; put that back, or submit anew\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert repro(repository, SLURM_JOB_ID="8").returncode == 0  # another job


def test_parameters_are_kept_by_the_second_attempt_if_the_first_had_no_time(repository: Path) -> None:
    (repository / ".dvc/tmp/rwlock").unlink()
    assert repro(repository, SLURM_RESTART_COUNT="1").returncode == 0
    (repository / "params.yaml").write_text("a: 2\n")
    done = repro(repository, SLURM_RESTART_COUNT="2")
    assert (done.returncode, "params.yaml has changed since" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["job-dvc", "run.sbatch", "requeue.sbatch", "sweep.sbatch"])
def test_outside_a_job_a_script_says_so(name: str, repository: Path) -> None:
    for script in (ROOT / "scripts/slurm").iterdir():
        shutil.copy(script, repository / "scripts/slurm")
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    shell = [] if name == "job-dvc" else ["bash"]
    done = subprocess.run(
        [*shell, f"scripts/slurm/{name}", "repro"], cwd=repository, env=outside, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"(job-dvc: )?this is no job of (SLURM|an array)[:;] [\w ]+\n", done.stderr)
    assert not (repository / "out").exists()
