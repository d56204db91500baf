"""scripts/drop-killed, on a `--temp` experiment of DVC that is killed."""

import json
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


def age(folder: Path) -> None:
    """Have the experiments begun two minutes ago."""
    for path in folder.glob(".dvc/tmp/exps/standalone/tmp*"):
        os.utime(path, (time.time() - 120, time.time() - 120))


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
        young = run(repository, SCRIPT, "mine", check=False)
        assert young.stderr == "drop-killed: mine is left alone: it began, or ended, within the last minute\n"
        age(repository)
        assert re.fullmatch(r"mine \([0-9a-f]{7}\): process \d+ works on it\n", run(repository, SCRIPT).stdout)
        refused = run(repository, SCRIPT, "mine", check=False)
        assert refused.returncode == 1
        assert re.fullmatch(r"drop-killed: mine is left alone: process \d+ works on it\n", refused.stderr)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 10
    while not (said := run(repository, SCRIPT).stdout).endswith(": no process of this machine works on it\n"):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    assert listed(repository) == ["mine"]
    age(repository)
    assert run(repository, SCRIPT, "mine").stdout.startswith("mine: removed; ")
    assert listed(repository) == []
    assert not list(repository.glob(".dvc/tmp/exps/standalone/tmp*"))


def test_outside_of_a_repository_it_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, SCRIPT, check=False).stderr.startswith("drop-killed: there is no .dvc here")


@pytest.mark.parametrize(
    ("file", "record"),
    [
        ("run/{sha}/{sha}.run", {"root_dir": ".dvc/tmp/exps/standalone/run", "name": "a"}),
        ("run/{sha}/...run", {"root_dir": ".dvc/tmp/exps/standalone/tmp1", "name": "a"}),
        ("run/{sha}/{sha}.run", {"root_dir": ".", "name": "a"}),
        ("run/{sha}/{sha}.run", {"root_dir": ".dvc/tmp/exps/standalone/tmp1", "name": ["a"]}),
        ("run/{sha}/{sha}.run", {"root_dir": "a\0b", "name": "a"}),
        ("run/{sha}/{sha}.run", ["a"]),
    ],
)
def test_a_record_that_is_none_of_dvcs_removes_nothing(file: str, record: object, tmp_path: Path) -> None:
    sha = "0" * 40
    for folder in (f"run/{sha}", "standalone/run", "standalone/tmp1"):
        (tmp_path / ".dvc/tmp/exps" / folder).mkdir(parents=True)
    (tmp_path / ".dvc/tmp/exps" / file.format(sha=sha)).write_text(json.dumps(record))
    before = sorted(tmp_path.rglob("*"))
    done = run(tmp_path, SCRIPT, "a", check=False)
    assert (done.returncode, done.stderr) == (1, "drop-killed: a does not stand as running; none does\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_of_two_with_one_name_the_commit_tells(tmp_path: Path) -> None:
    for digit in "ab":
        sha = digit * 40
        (tmp_path / f".dvc/tmp/exps/run/{sha}").mkdir(parents=True)
        (tmp_path / f".dvc/tmp/exps/standalone/tmp{digit}").mkdir(parents=True)
        record = {"root_dir": str(tmp_path / f".dvc/tmp/exps/standalone/tmp{digit}"), "name": "mine"}
        (tmp_path / f".dvc/tmp/exps/run/{sha}/{sha}.run").write_text(json.dumps(record))
    age(tmp_path)
    said = (
        "drop-killed: mine names several that stand as running: mine (aaaaaaa), mine (bbbbbbb); "
        "give the commit of one\n"
    )
    assert run(tmp_path, SCRIPT, "mine", check=False).stderr == said
    assert run(tmp_path, SCRIPT, "bbbbbbb").returncode == 0
    assert [path.name for path in (tmp_path / ".dvc/tmp/exps/standalone").iterdir()] == ["tmpa"]
