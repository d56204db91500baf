"""The default pretraining, killed at random moments: each time it goes on, and ends with the identical encoder."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.programs import ROOT, change, expected, ready, stage

KILLS = 20
INTERVAL = 2.0
"""Seconds between checkpoints."""


def environment(folder: Path) -> dict[str, str]:
    own = {"DVC_ROOT": str(folder), "DVC_STAGE": "pretrain", "DVC_EXP_NAME": "killed"}
    return os.environ | own | {"PYTHONPATH": str(ROOT / "src"), "CHECKPOINT_MINUTES": str(INTERVAL / 60)}


def started(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "stages" / "pretrain.py")],
        cwd=folder, env=environment(folder), start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A folder in which the shipped experiment was pretrained, and how many seconds that took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    change(folder)
    for name in ("fetch", "convert"):
        assert stage(name, folder).returncode == 0
    began = time.monotonic()
    process = started(folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return folder, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(
    kill: int, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    whole, seconds = undisturbed
    ready("pretrain", whole, tmp_path)
    process = started(tmp_path)
    # one in each twentieth of the time, the start and the end with their own work included
    time.sleep(seconds * (kill + random.Random(kill).random()) / KILLS)
    os.killpg(process.pid, signal.SIGKILL)
    killed_at = time.time()
    process.communicate()
    found = {path.stat().st_mtime: int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoints/*/step-*")}
    training = not (tmp_path / "models").exists()
    _, said = (again := started(tmp_path)).communicate()
    assert again.returncode == 0, said
    if found:
        written_at = max(found)
        assert f"goes on from step {found[written_at]} of" in said
        assert killed_at - written_at < INTERVAL + 5 or not training  # a step and a write come on top
    assert expected("pretrain", tmp_path) == expected("pretrain", whole)
