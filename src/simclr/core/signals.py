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
"""Seconds that a process of several has to reach a stop; the others may be dead."""


class Interruption:
    """The request to stop: `number` is that of the first signal, 0 before it."""

    def __init__(self) -> None:
        self.number = 0
        self._acknowledged = threading.Event()

    def acknowledge(self) -> None:
        """Note that the run is stopping, and lift the limit on its time."""
        self._acknowledged.set()

    def _exit_unless_acknowledged(self, wakeup: socket.socket) -> None:
        received = wakeup.recv(1)
        if received and not self._acknowledged.wait(_GRACE):
            os._exit(128 + received[0])


@contextmanager
def catch_signals(*, multi_process: bool) -> Iterator[Interruption]:
    """Note signals in an `Interruption` instead of ending the process; for its main thread only.

    A single process ends at once on a second SIGINT; other signals may repeat, as a scheduler's and that of
    `exit_with_parent`. With `multi_process` the process exits if nobody acknowledges the signal within 20 seconds:
    it may be waiting for a dead one; and after a signal the next ones are ignored for good, because SLURM and its srun
    each send one, and the second would end the process before it has said why it stops.
    """
    interruption = Interruption()

    def note(number: int, _: FrameType | None) -> None:
        interruption.number = interruption.number or number
        if number == signal.SIGINT and not multi_process:
            signal.signal(number, signal.SIG_DFL)

    with _watchdog(interruption) if multi_process else nullcontext():
        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield interruption
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if multi_process and interruption.number else handler)


@contextmanager
def _watchdog(interruption: Interruption) -> Iterator[None]:
    """Exit from a thread if no one acknowledges a signal.

    Python runs signal handlers between two bytecode instructions, so never while the process is stuck in a collective
    whose peer died. The byte that a signal writes into the wakeup socket arrives at once.
    """
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        watcher = threading.Thread(
            target=interruption._exit_unless_acknowledged, args=(far,), name="interruption", daemon=True
        )
        watcher.start()
        before = signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            interruption.acknowledge()
            near.close()
            watcher.join()
