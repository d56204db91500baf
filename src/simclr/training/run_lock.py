"""A run's folder belongs to one process at a time; another one with the same identity waits for it."""

import fcntl
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_TOLD_SECONDS = 600
"""How often a run says that it still waits for another process with the same identity."""
LOCK, _AWAITED = "lock", "awaited"
FILES = (LOCK, _AWAITED)
"""What stays in the folder when the rest goes: somebody may be waiting for it."""

_log = logging.getLogger(__name__)


@contextmanager
def held(folder: Path, waits: Callable[[], object]) -> Iterator[bool]:
    """Hold `folder`, once no other process does; yields whether one did.

    The kernel lets go of it when the process ends, however it does. Until then those who wait share a lock of their
    own, by which the one before them knows that its last checkpoint is needed.
    """
    with (folder / LOCK).open("a+") as file:
        waited = not taken(file.fileno())
        if waited:
            with (folder / _AWAITED).open("a") as waiting:
                fcntl.flock(waiting, fcntl.LOCK_SH)
                _wait_for(file, waits)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield waited


def _wait_for(file: TextIO, waits: Callable[[], object]) -> None:
    """Wait for the lock on `file`, in which its holder has written who it is."""
    began, told = time.monotonic(), -math.inf
    while not taken(file.fileno()):
        now = time.monotonic()
        if now - told > _TOLD_SECONDS:
            file.seek(0)
            holder = file.read() or "another process"
            since = f", since {(now - began) / 60:.0f} min" if now - began > 1 else ""
            _log.info(f"{holder} is at this very run; waits for its result{since}")
            told = now
        waits()
        time.sleep(0.2)


def awaited(folder: Path) -> bool:
    """Whether a process waits for the one that holds `folder`."""
    if not (folder / _AWAITED).exists():
        return False
    with (folder / _AWAITED).open("a") as waiting:
        return not taken(waiting.fileno())


def taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
