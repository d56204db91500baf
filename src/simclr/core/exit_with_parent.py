"""Exit when dvc or torchrun's agent is gone, which started this process.

Killing `dvc` leaves its stage alive, and killing torchrun's agent leaves its workers alive: they would keep writing
beside their successors.
"""

import os
import re
import signal
import threading
import time
from pathlib import Path

PARENT = "SIMCLR_PARENT"
"""`<namespace>:<number>` of dvc or the agent, set by `scripts/stage` or the agent itself, since they may go during the
seconds that this process imports. Without it, or from another PID namespace, they are taken for the parent of now."""
_SECONDS = 0.5


def this_process() -> str:
    """What PARENT has to be for processes that end with this one."""
    return f"{_namespace()}:{os.getpid()}"


def watch() -> None:
    """Send this process SIGTERM when dvc or torchrun's agent is gone, or SIGKILL where it ignores SIGTERM.

    A process started by hand may outlive its shell.
    """
    namespace, _, parent = os.environ.pop(PARENT, "").rpartition(":")  # not for those that this process starts
    if "DVC_STAGE" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ:
        is_known = namespace == _namespace() != "" and re.fullmatch("[0-9]{1,9}", parent)
        number = int(parent) if is_known else os.getppid()
        threading.Thread(target=_wait, args=(number,), name="orphan", daemon=True).start()


def _namespace() -> str:
    """The name of this process's PID namespace; empty where /proc does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _wait(parent: int) -> None:
    while _is_ancestor(parent):  # a shell, or a wrapper of python, may lie between and live on
        time.sleep(_SECONDS)
    is_ignored = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # as dvc had it, by `trap '' TERM`
    os.kill(os.getpid(), signal.SIGKILL if is_ignored else signal.SIGTERM)


def _is_ancestor(parent: int) -> bool:
    """Whether the process `parent` is above this one; True where that cannot be known, as without free descriptors."""
    process = os.getppid()
    while process not in (parent, 0):
        try:
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError:
            return True
        found = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
        process = int(found[1]) if found else 0
    return process == parent
