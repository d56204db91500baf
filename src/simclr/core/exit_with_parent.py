"""Exit when dvc or torchrun's agent is gone, which started this process.

Killing `dvc` leaves its stage alive, and killing torchrun's agent leaves its workers alive: they would keep writing
beside their successors.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PARENT = "SIMCLR_PARENT"
"""The number of dvc or the agent, set by `scripts/stage` or the agent itself, since they may go during the seconds that
this process imports. Without it they are taken for the parent of now."""
_SECONDS = 0.5


def watch() -> None:
    """Send this process SIGTERM when dvc or torchrun's agent is gone.

    A process started by hand may outlive its shell.
    """
    parent = os.environ.pop(PARENT, "")  # not for those that this process starts
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        number = int(parent) if re.fullmatch("[0-9]{1,9}", parent) else os.getppid()
        threading.Thread(target=_wait, args=(number,), name="orphan", daemon=True).start()


def _wait(parent: int) -> None:
    while parent in _ancestors():  # a shell, or a wrapper of python, may lie between and live on
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _ancestors() -> Iterator[int]:
    """The numbers of the processes above this one, from its parent up, as far as /proc knows them."""
    process = os.getppid()
    while process:
        yield process
        try:
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        found = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        process = int(found[1]) if found else 0
