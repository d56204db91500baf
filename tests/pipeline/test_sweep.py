"""A job of a sweep on SLURM, run as SLURM would run it."""

import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from zc.lockfile import LockFile

from tests.helpers.programs import ROOT
from tests.pipeline.test_job_dvc import environment


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A commit with one stage, that depends on the parameter of the sweep."""
    folder = tmp_path / "repository"
    (folder / "scripts/slurm").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/slurm/sweep.sbatch", folder / "scripts/slurm")
    (folder / "params.yaml").write_text("losses:\n  nt_xent:\n    temperature: 0.5\n")
    commands = [
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "stage", "add", "-q", "-n", "a", "-p", "losses", "-o", "out", "cp params.yaml out"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ]
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_job_waits_while_another_has_the_lock_of_dvc(repository: Path) -> None:
    """DVC itself gives up after three seconds."""
    lock = LockFile(str(repository / ".dvc/tmp/lock"))
    release = threading.Timer(10, lock.close)
    release.start()
    done = subprocess.run(
        ["bash", "scripts/slurm/sweep.sbatch"], cwd=repository, env=environment(SLURM_ARRAY_TASK_ID="1"),
        capture_output=True, text=True,
    )  # fmt: skip
    release.join()
    assert done.returncode == 0, done.stderr
    show = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
    names = subprocess.run(show, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert names.rstrip().endswith("/temperature-0.2")
