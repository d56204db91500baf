"""Exit when the parent process is gone.

Killing `dvc` leaves its stage alive, and killing torchrun's agent leaves its workers alive: they would keep writing
beside their successors.
"""

import os
import signal
import threading
import time

_SECONDS = 0.5


def watch() -> None:
    """Send this process SIGTERM when its parent, dvc or torchrun, is gone.

    A process started by hand may outlive its shell.
    """
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_wait, args=(os.getppid(),), name="orphan", daemon=True).start()


def _wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
