"""A stage ends with the dvc that started it; one that was started by hand outlives its shell."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from simclr.core import exit_with_parent

CHILD = (
    "import time; from simclr.core import exit_with_parent; exit_with_parent.watch(); "
    "print('up', flush=True); time.sleep(60)"
)
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
BEHIND_A_SHELL = (
    "import os, subprocess, sys, time; "
    f"os.environ['{exit_with_parent.PARENT}'] = os.readlink('/proc/self/ns/pid') + f':{{os.getpid()}}'; "
    "subprocess.Popen(['bash', '-c', '\"$@\"; exit', 'bash', sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
)
"""A program that starts another one by a shell, which outlives it."""


@pytest.mark.parametrize(
    ("program", "variable", "ends"),
    [
        (PARENT, "DVC_STAGE", True),
        (PARENT, "TORCHELASTIC_RUN_ID", True),
        (PARENT, "OTHER", False),
        (BEHIND_A_SHELL, "DVC_STAGE", True),
        (BEHIND_A_SHELL, "TORCHELASTIC_RUN_ID", True),
        (BEHIND_A_SHELL, "OTHER", False),
    ],
)
def test_killing_the_parent_ends_the_child(program: str, variable: str, ends: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", program, CHILD],
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
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    """As under `trap '' TERM`, which dvc and its stage inherit."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "from simclr.core import exit_with_parent as e; e.watch(); time.sleep(60)"
    )
    parent = {exit_with_parent.PARENT: f"{os.readlink('/proc/self/ns/pid')}:{gone.pid}", "DVC_STAGE": "pretrain"}
    assert (
        subprocess.run([sys.executable, "-c", code], env=os.environ | parent, timeout=30).returncode == -signal.SIGKILL
    )


@pytest.mark.parametrize(
    ("variable", "parent", "ends"),
    [
        ("DVC_STAGE", "{here}:{gone}", True),
        ("OTHER", "{here}:{gone}", False),
        ("DVC_STAGE", "{here}:{above}", False),  # a shell lies between
        ("DVC_STAGE", "pid:[1]:{gone}", False),  # a number of another namespace
        ("DVC_STAGE", ":{gone}", False),
        ("DVC_STAGE", "{here}:no number", False),
        ("DVC_STAGE", "", False),
        ("DVC_STAGE", "{here}:" + "9" * 5000, False),
    ],
)
def test_a_parent_that_was_killed_during_the_imports_ends_it_too(variable: str, parent: str, ends: bool) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    code = (
        "import os, time; from simclr.core import exit_with_parent as e; e.watch(); "
        "print(e.PARENT in os.environ, flush=True); time.sleep(2)"
    )
    environment = os.environ | {
        variable: "pretrain",
        exit_with_parent.PARENT: parent.format(
            here=os.readlink("/proc/self/ns/pid"), gone=gone.pid, above=os.getppid()
        ),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == (-signal.SIGTERM if ends else 0)
    assert ends or done.stdout == "False\n"  # those that it starts have another parent
