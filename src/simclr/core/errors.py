"""What ends a stage in one line, without a traceback."""

import signal


class UserError(Exception):
    """Something outside the code is wrong. One line: the key or file, what was wrong with it, what is allowed."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A signal asked the run to stop, and it did, in good order; `message` says how to go on."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{message}")
        self.number = number
