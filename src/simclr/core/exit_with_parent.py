"""Exit when the parent process is gone.

Killing `dvc` leaves its stage alive, and killing torchrun's agent leaves its workers alive: they would keep writing
beside their successors.
"""

import os
import signal
import threading
import time

PARENT = "SIMCLR_PARENT"
"""A process that starts this one leaves its number here: this one's imports take seconds, in which it may go."""
_SECONDS = 0.5


def watch() -> None:
    """Send this process SIGTERM when its parent, dvc or torchrun, is gone.

    A process started by hand may outlive its shell.
    """
    parent = int(os.environ.pop(PARENT, os.getppid()))  # it is none of those that this process starts
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_wait, args=(parent,), name="orphan", daemon=True).start()


def _wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
