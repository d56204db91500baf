"""A stage ends with the dvc that started it; one that was started by hand outlives its shell."""

import os
import select
import signal
import subprocess
import sys

import pytest

CHILD = (
    "import time; from simclr.core import exit_with_parent; exit_with_parent.watch(); "
    "print('up', flush=True); time.sleep(60)"
)
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"


@pytest.mark.parametrize(("variable", "ends"), [("DVC_STAGE", True), ("TORCHELASTIC_RUN_ID", True), ("OTHER", False)])
def test_killing_the_parent_ends_the_child(variable: str, ends: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {variable: "pretrain"},
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.wait()
    try:
        # the child holds the other end of the pipe, which has an end when it has ended
        ended, _, _ = select.select([parent.stdout], [], [], 10 if ends else 2)
        assert bool(ended) is ends
    finally:
        if not ends:
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()
