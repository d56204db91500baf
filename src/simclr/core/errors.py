"""Exceptions that end a stage in one line, without a traceback."""

import signal


class UserError(Exception):
    """Bad input or a failing machine. One line: the key or file, what is wrong with it, what is allowed."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The run stopped in good order after a signal; `message` says how to resume."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{message}")
        self.number = number
