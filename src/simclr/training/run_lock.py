"""The lock of a run's folder: one process at a time; others with the same identity wait for it."""

import errno
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
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of flock(2) on a file system without locks, such as Lustre that is mounted without them."""

_log = logging.getLogger(__name__)


@contextmanager
def hold(folder: Path, on_wait: Callable[[], object]) -> Iterator[bool]:
    """Lock `folder`, waiting for other processes; yield whether there was one.

    The kernel releases the lock when the process ends in any way. Waiting processes share a second lock, which tells
    the holder of the first one that they need its last checkpoint. Where the file system has no locks, go on without,
    and log what that means.
    """
    with (folder / LOCK).open("a+") as file:
        locked = try_lock(file.fileno())
        if locked is None:
            _log.warning(
                f"{folder}: this file system has no locks, so nothing keeps a second run of the same experiment from "
                "spoiling these checkpoints; do not start one meanwhile"
            )
            yield False
            return
        waited = not locked
        if waited:
            with (folder / _AWAITED).open("a+") as waiting:  # NFS takes LOCK_SH of readable files only
                fcntl.flock(waiting, fcntl.LOCK_SH)
                _wait_for(file, on_wait)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield waited


def _wait_for(file: TextIO, on_wait: Callable[[], object]) -> None:
    """Wait for the lock on `file`, which contains the name of its holder."""
    began, logged_at = time.monotonic(), -math.inf
    while try_lock(file.fileno()) is False:
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
        return try_lock(waiting.fileno()) is False


def try_lock(descriptor: int) -> bool | None:
    """Whether this process has the lock now; None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True
