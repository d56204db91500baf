"""Signals that ask a run to stop: SIGTERM and SIGUSR1 from a scheduler, SIGINT from a keyboard."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_GRACE = 20
"""Seconds after which a process that waits in vain for the others ends without having come to a stop."""


class Interruption:
    """What was asked for: `number` is that of the first signal that came, 0 before."""

    def __init__(self) -> None:
        self.number = 0
        self._acknowledged = threading.Event()

    def acknowledge(self) -> None:
        """The run has come to the point where it stops: it may take its time now."""
        self._acknowledged.set()

    def _end_in_time(self, wakeup: socket.socket) -> None:
        received = wakeup.recv(1)
        if received and not self._acknowledged.wait(_GRACE):
            os._exit(128 + received[0])


@contextmanager
def catch_signals(*, multi_process: bool) -> Iterator[Interruption]:
    """Have signals noted instead of ending the process, whose main thread this must be.

    A second SIGINT, from somebody who will not wait, ends a process alone at once; others may repeat each other, as a
    scheduler's and the one that `orphan` sends. `multi_process`, which are dead perhaps, the process ends anyhow if
    nobody acknowledges the signal within 20 seconds.
    """
    interruption = Interruption()

    def note(number: int, _: FrameType | None) -> None:
        interruption.number = interruption.number or number
        if number == signal.SIGINT and not multi_process:
            signal.signal(number, signal.SIG_DFL)

    with _timed(interruption) if multi_process else nullcontext():
        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _timed(interruption: Interruption) -> Iterator[None]:
    """Have a thread end the process that does not acknowledge a signal.

    Python's handlers run between two of its instructions, so never in a process stuck in a collective whose other
    side died. The byte that a signal writes into the wakeup socket comes at once.
    """
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        watcher = threading.Thread(target=interruption._end_in_time, args=(far,), name="interruption", daemon=True)
        watcher.start()
        before = signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            interruption.acknowledge()
            near.close()
            watcher.join()
