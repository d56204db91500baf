"""Exit when the parent process is gone.

Killing `dvc` leaves its stage alive, and killing torchrun's agent leaves its workers alive: they would keep writing
beside their successors.
"""

import os
import signal
import threading
import time

PARENT = "SIMCLR_PARENT"
"""What starts this process leaves the number of its parent here, since that may go during the seconds that this one
imports: `<this>:<parent>`, or `:<parent>` where its own is not known before. Without it, or where a program that starts
this one lies between, the parent is that of now."""
_SECONDS = 0.5


def watch() -> None:
    """Send this process SIGTERM when its parent, dvc or torchrun, is gone.

    A process started by hand may outlive its shell.
    """
    own, _, parent = os.environ.pop(PARENT, "").partition(":")  # not for those that this process starts
    known = own in ("", str(os.getpid())) and parent.isdecimal()
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(
            target=_wait, args=(int(parent) if known else os.getppid(),), name="orphan", daemon=True
        ).start()


def _wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
