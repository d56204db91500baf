"""A process that ends with the one that started it.

Killing `dvc` leaves the stage that it runs alive, as killing torchrun's agent does its workers: they would go on to
write beside their successors.
"""

import os
import signal
import threading
import time

_SECONDS = 0.5


def watch() -> None:
    """Have this process get SIGTERM when its parent is gone, where that parent is dvc or torchrun.

    A process started by hand is left alone, so that it may outlive its shell.
    """
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_wait, args=(os.getppid(),), name="orphan", daemon=True).start()


def _wait(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
