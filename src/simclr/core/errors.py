"""Exceptions that end a stage in one line, without a traceback."""

import signal
from collections.abc import Callable, Iterable
from typing import Any

_NAMED = 8
"""Errors that are told at once, at most."""


class UserError(Exception):
    """Bad input or a failing machine. One line: the key or file, what is wrong with it, what is allowed."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The run stopped in good order after a signal; `message` says how to resume."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{message}")
        self.number = number


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise the `errors`, if there are any, as one: who corrects one value should not have to run again to be told of
    the next. Beyond some, they are counted."""
    messages = [str(error) for error in errors]
    if len(messages) > _NAMED:
        messages = [*messages[:_NAMED], f"and {len(messages) - _NAMED} more"]
    if messages:
        raise UserError("; ".join(messages))


def gathered(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """What the `checks` return.

    Raises:
        UserError: of all checks that raise one, as `raise_all`.
    """
    results, errors = [], []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            errors.append(error)
    raise_all(errors)
    return results
