"""The record of a run: what Git, the packages and the machine were."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from simclr.report import provenance, tables


def git(*command: str) -> str:
    identity = ("-c", "user.name=name", "-c", "user.email=mail")
    return subprocess.run(["git", *identity, *command], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "reports").mkdir()
    for name in ("params.yaml", "dvc.lock", "reports/metrics.json"):
        (tmp_path / name).write_text("before")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_clone_and_what_makes_it_dirty(clone: Path) -> None:
    assert provenance.record({})["git"] == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    for name in ("dvc.lock", "reports/metrics.json", "reports/new.json"):  # the run's own doing
        (clone / name).write_text("after")
    assert provenance.record({})["git"]["dirty"] is False
    (clone / "params.yaml").write_text("after")
    assert provenance.record({})["git"]["dirty"] is True
    git("checkout", "-q", "params.yaml")
    (clone / "untracked.py").write_text("")
    assert provenance.record({})["git"]["dirty"] is True


def test_without_git_there_is_a_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.record({})["git"] == {"revision": "", "dirty": True}


def test_versions_machine_and_fingerprints_make_a_file(tmp_path: Path) -> None:
    record = provenance.record({"data": "ab"}, torch.device("cpu"), processes=2)
    assert record["versions"]["torch"] == version("torch")
    assert record["machine"]["cores"] == os.cpu_count()
    assert (record["machine"]["device"], record["machine"]["processes"]) == ("cpu", 2)
    assert record["machine"]["cpu"]
    assert record["fingerprints"] == {"data": "ab"}
    tables.write_json(tmp_path / "run.json", record)
