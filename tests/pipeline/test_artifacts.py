"""The section `artifacts` of dvc.yaml, and docs/using.md's commands by which others get the encoder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from tests.helpers.programs import ROOT

PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())


def run(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """`command`, its words separated by a space, in `folder`; Git reads no settings of the user."""
    identity = {f"GIT_{who}_{what}": "tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | identity | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "DVC_NO_ANALYTICS": "1",
    }  # fmt: skip
    return subprocess.run(command.split(" "), cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_dvc_reads_the_artifact_and_its_file_is_one_that_pretrain_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    Repo.init(no_scm=True).close()
    with Repo() as repo:
        [artifacts] = repo.artifacts.read().values()
    assert list(artifacts) == ["encoder"]
    assert (artifacts["encoder"].path, artifacts["encoder"].type) == ("models/encoder.safetensors", "model")
    assert artifacts["encoder"].desc
    assert artifacts["encoder"].labels
    assert artifacts["encoder"].path in PIPELINE["stages"]["pretrain"]["outs"]


def test_others_get_the_encoder_by_its_path_and_by_its_name(tmp_path: Path) -> None:
    mine, bare, theirs = (tmp_path / name for name in ("mine", "bare", "theirs"))
    (mine / "models").mkdir(parents=True)
    theirs.mkdir()
    stage = {"cmd": "echo weights > models/encoder.safetensors", "outs": ["models/encoder.safetensors"]}
    with (mine / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": {"pretrain": stage}, "artifacts": PIPELINE["artifacts"]}, file)
    for command in (
        "git init -q", "dvc init -q", "dvc repro -q",
        f"dvc remote add --default storage {tmp_path}/storage", "git add .", "git commit -qm shared",
        "dvc push -q models/encoder.safetensors", "git tag -a encoder@v1.0.0 -m first",
        f"git clone -q --bare . {bare}",
    ):  # fmt: skip
        done = run(mine, command)
        assert done.returncode == 0, done.stderr
    for command, name in (
        (f"dvc get {bare} models/encoder.safetensors", "encoder.safetensors"),
        (f"dvc artifacts get {bare} encoder --rev v1.0.0 -o again.safetensors", "again.safetensors"),
    ):
        done = run(theirs, command)
        assert done.returncode == 0, done.stderr
        assert (theirs / name).read_text() == "weights\n"
