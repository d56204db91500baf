"""scripts/relock on a pipeline of one stage, which depends on the library's code."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.programs import ROOT, unread

STAGE = """
stages:
  convert:
    cmd: echo made >> made.txt
    deps:
    - input.txt
    - src/list.txt
    - src/simclr
    - stages/convert.py
    params:
    - augment
    - convert
    outs:
    - made.txt:
        persist: true
"""
RECORD = """
from pathlib import Path
from simclr.tracking import provenance
provenance.write(Path("stages/convert.py"), [Path("made.txt")], {}, ["augment.jitter"])
"""


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose stage has run."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / "input.txt").write_text("input")
    (folder / "src/list.txt").write_text("one")
    edit(folder / "params.yaml", "label_list: weights/none", "label_list: src/list.txt")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        assert run(folder, *command).returncode == 0
    assert run(folder, sys.executable, "-c", RECORD).returncode == 0
    return folder


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "repository")


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def relock(folder: Path) -> tuple[int, str]:
    done = run(folder, sys.executable, str(ROOT / "scripts" / "relock"))
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_changed_prose_and_code_that_is_not_used_are_taken_over_without_a_run(repository: Path) -> None:
    edit(repository / "src/simclr/data/beton.py", '"""', '"""Another sentence. ')
    edit(repository / "stages/convert.py", "\n\n\ndef main", "\n\n\n# another comment\ndef main")
    (repository / "src/simclr/losses/another.py").write_text("UNUSED = 1\n")
    edit(repository / "params.yaml", "  blur:\n", "  another:\n    degrees: 3\n  blur:\n")
    assert "changed deps" in run(repository, "dvc", "status").stdout
    assert relock(repository) == (0, "convert: what it uses is what made its results, so that dvc.lock takes it over\n")
    assert "up to date" in run(repository, "dvc", "status").stdout
    assert (repository / "made.txt").read_text() == "made\n"
    assert relock(repository) == (0, "")


CHANGES = {
    "code": ("src/simclr/data/beton.py", "1 << 21", "1 << 22"),
    "the stage itself": ("stages/convert.py", '"classes.csv"', '"names.csv"'),
    "a parameter of its own": ("params.yaml", "val_fraction: 0.1", "val_fraction: 0.2"),
    "a parameter of an option that it uses": ("params.yaml", "brightness: 0.4", "brightness: 0.3"),
    "its input": ("input.txt", "input", "other"),
    "the user's data beside the code": ("src/list.txt", "one", "another"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_results_is_left_to_dvc(change: str, repository: Path) -> None:
    path, before, after = CHANGES[change]
    edit(repository / path, before, after)
    assert relock(repository) == (1, "dvc repro has to run convert, and what follows\n")
    assert "changed deps" in run(repository, "dvc", "status").stdout


def test_all_data_that_parameters_name_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    relock = runpy.run_path(str(ROOT / "scripts" / "relock"))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    named = re.compile(r"\$\{([\w.]+)\}/?")
    found = {match[1] for stage in stages for dep in stage["deps"] if (match := named.fullmatch(dep))}
    assert found == set(relock["DATA"])


def test_it_ends_without_a_word_where_nobody_reads_on(repository: Path) -> None:
    (repository / "input.txt").write_text("other")
    done = unread(sys.executable, str(ROOT / "scripts" / "relock"), folder=repository, unbuffered=True)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_without_knowing_what_is_meant_it_changes_nothing(repository: Path) -> None:
    edit(repository / "src/simclr/data/beton.py", '"""', '"""Another sentence. ')
    before = (repository / "dvc.lock").read_bytes()
    for argument, code in (("--help", 0), ("convert", 2)):
        assert run(repository, sys.executable, str(ROOT / "scripts" / "relock"), argument).returncode == code
    assert (repository / "dvc.lock").read_bytes() == before


def test_what_dvc_refuses_ends_it(repository: Path, tmp_path: Path) -> None:
    edit(repository / "src/simclr/data/beton.py", '"""', '"""Another sentence. ')
    status = run(repository, "dvc", "status", "--json").stdout
    program = tmp_path / "bin" / "dvc"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ $1 = commit ] && echo no >&2 && exit 7\necho '{status}'")
    program.chmod(0o755)
    done = run(
        repository, "env", f"PATH={program.parent}:{os.environ['PATH']}", sys.executable,
        str(ROOT / "scripts" / "relock"),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "no\n")


def test_without_the_environment_it_says_so(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-E", "-S", str(ROOT / "scripts" / "relock")], cwd=repository, capture_output=True, text=True
    )
    said = "relock: needs the environment (No module named 'simclr'): make relock\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_without_a_record_nothing_is_taken_over(repository: Path) -> None:
    (repository / "reports/convert/run.json").unlink()
    edit(repository / "src/simclr/data/beton.py", '"""', '"""Another sentence. ')
    assert relock(repository) == (1, "dvc repro has to run convert, and what follows\n")


def test_results_of_other_code_that_dvc_restored_are_not_taken_for_those_of_the_record(repository: Path) -> None:
    """As after a change that DVC had in its run cache, and the way back: the record is of the first results."""
    (repository / "made.txt").write_text("by other code\n")
    assert run(repository, "dvc", "commit", "-q", "--force", "convert").returncode == 0
    edit(repository / "src/simclr/data/beton.py", '"""', '"""Another sentence. ')
    assert relock(repository) == (1, "dvc repro has to run convert, and what follows\n")
