"""`make reset` in repositories of Git in any state; DVC and the setup are stand-ins."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT

FILES = ("params.yaml", "dvc.lock", "reports/train/metrics.json", "src/code.py")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}, committed\n")
    for program in ("scripts/setup", ".venv/bin/dvc"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", ".")
    commit(tmp_path, "first")
    return tmp_path


def git(clone: Path, *arguments: str, check: bool = True) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone"]
    done = subprocess.run(["git", *identity, *arguments], cwd=clone, capture_output=True, text=True, check=check)
    return done.stdout


def commit(clone: Path, message: str) -> None:
    git(clone, "commit", "--quiet", "--all", "--message", message)


def reset(clone: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "reset"], cwd=clone, capture_output=True, text=True, check=False)


def test_everything_committed_comes_back_and_new_files_stay(clone: Path) -> None:
    (clone / "params.yaml").write_text("changed\n")
    (clone / "dvc.lock").unlink()
    (clone / "reports/train/metrics.json").write_text("changed\n")
    (clone / "reports/more.csv").touch()
    (clone / "new.py").touch()
    git(clone, "add", "new.py")
    git(clone, "mv", "src/code.py", "src/renamed.py")
    assert reset(clone).returncode == 0
    assert [(clone / name).read_text() for name in FILES] == [f"{name}, committed\n" for name in FILES]
    assert git(clone, "status", "--porcelain").splitlines() == ["?? new.py", "?? src/renamed.py"]


def changed(clone: Path, text: str) -> None:
    (clone / "params.yaml").write_text(f"{text}\n")
    commit(clone, text)


@pytest.mark.parametrize("begun", ["merge", "cherry-pick", "revert", "rebase", "another Git", "no commit"])
def test_nothing_is_removed_where_git_would_not_go_back(begun: str, clone: Path) -> None:
    git(clone, "switch", "--quiet", "--create", "other")
    changed(clone, "theirs")
    git(clone, "switch", "--quiet", "main")
    changed(clone, "ours")
    changed(clone, "ours again")
    if begun == "another Git":
        (clone / ".git/index.lock").touch()
    elif begun == "no commit":
        git(clone, "switch", "--quiet", "--orphan", "empty")
        (clone / "params.yaml").write_text("mine\n")
        shutil.copy(ROOT / "Makefile", clone / "Makefile")
        (clone / "scripts").mkdir()
        (clone / "scripts/setup").write_text("#!/bin/sh\n")
        (clone / "scripts/setup").chmod(0o755)
    else:
        git(clone, begun, "HEAD~1" if begun == "revert" else "other", check=False)
        assert "<<<<<<<" in (clone / "params.yaml").read_text()
    before = (clone / "params.yaml").read_text()
    done = reset(clone)
    assert done.returncode != 0
    assert (clone / "params.yaml").read_text() == before
    assert (clone / "dvc.lock").exists() == (begun != "no commit")
    if begun in ("merge", "cherry-pick", "revert", "rebase"):
        state = begun.upper().replace("-", "_") + "_HEAD"
        assert f"reset: Git has begun what {state} names; abort that first\n" in done.stdout
