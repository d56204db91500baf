"""scripts/drop-killed, on a `--temp` experiment of DVC that is killed."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipeline.test_review import ROOT, commit, environment, run

SCRIPT = str(ROOT / "scripts" / "drop-killed")


def listed(folder: Path) -> list[str]:
    shown = run(folder, "dvc", "exp", "show", "--csv").stdout.splitlines()
    return [line.partition(",")[0] for line in shown if ",Running," in line]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    (folder / "dvc.yaml").write_text("stages:\n  wait:\n    cmd: touch begun && sleep 100\n    outs: [out]\n")
    commit(folder, "base")
    return folder


def test_a_killed_experiment_is_no_longer_listed_and_a_running_one_is_left_alone(repository: Path) -> None:
    assert run(repository, SCRIPT, "mine", check=False).stderr == (
        "drop-killed: mine does not stand as running; none does\n"
    )
    child = subprocess.Popen(
        ["dvc", "exp", "run", "--temp", "--name", "mine"], cwd=repository, env=environment(repository),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not list(repository.glob(".dvc/tmp/exps/standalone/*/begun")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert listed(repository) == ["mine"]
        assert run(repository, SCRIPT).stdout == "mine: a process works on it\n"
        refused = run(repository, SCRIPT, "mine", check=False)
        assert refused.returncode == 1
        assert re.fullmatch(r"drop-killed: mine is running: process \d+ works on it\n", refused.stderr)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 10
    while (said := run(repository, SCRIPT).stdout) != "mine: no process of this machine\n":
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    assert listed(repository) == ["mine"]
    assert run(repository, SCRIPT, "mine").stdout.startswith("mine: removed; ")
    assert listed(repository) == []
    assert not list(repository.glob(".dvc/tmp/exps/standalone/tmp*"))


def test_outside_of_a_repository_it_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, SCRIPT, check=False).stderr.startswith("drop-killed: there is no .dvc here")
