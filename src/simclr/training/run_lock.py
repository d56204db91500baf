"""The lock of a run's folder: one process at a time; others with the same identity wait for it."""

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

_LOG_SECONDS = 600
"""Seconds between two messages of a run that waits for another process."""
LOCK, _AWAITED = "lock", "awaited"
FILES = (LOCK, _AWAITED)
"""Files that stay when the folder is cleared: another process may be waiting for their locks."""

_log = logging.getLogger(__name__)


@contextmanager
def hold(folder: Path, on_wait: Callable[[], object]) -> Iterator[bool]:
    """Lock `folder`, waiting for other processes; yield whether there was one.

    The kernel releases the lock when the process ends in any way. Waiting processes share a second lock, which tells
    the holder of the first one that they need its last checkpoint.
    """
    with (folder / LOCK).open("a+") as file:
        waited = not try_lock(file.fileno())
        if waited:
            with (folder / _AWAITED).open("a") as waiting:
                fcntl.flock(waiting, fcntl.LOCK_SH)
                _wait_for(file, on_wait)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield waited


def _wait_for(file: TextIO, on_wait: Callable[[], object]) -> None:
    """Wait for the lock on `file`, which contains the name of its holder."""
    began, logged_at = time.monotonic(), -math.inf
    while not try_lock(file.fileno()):
        now = time.monotonic()
        if now - logged_at > _LOG_SECONDS:
            file.seek(0)
            holder = file.read() or "another process"
            since = f", since {(now - began) / 60:.0f} min" if now - began > 1 else ""
            _log.info(f"{holder} is running the same experiment; waiting for its result{since}")
            logged_at = now
        on_wait()
        time.sleep(0.2)


def has_waiters(folder: Path) -> bool:
    """Whether a process waits for the lock of `folder`."""
    if not (folder / _AWAITED).exists():
        return False
    with (folder / _AWAITED).open("a") as waiting:
        return not try_lock(waiting.fileno())


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
