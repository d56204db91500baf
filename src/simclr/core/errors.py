"""Exceptions that end a stage in one line, without a traceback."""

import signal
from collections.abc import Callable, Iterable
from typing import Any

_NAMED = 8
"""Errors that are told at once, at most."""


class UserError(Exception):
    """Bad input or a failing machine. One line: the key or file, what is wrong with it, what is allowed."""


class UserErrors(UserError):  # noqa: N818 (several)
    """Several at once: who corrects one value should not have to run again to be told of the next. Beyond some, they
    are counted."""

    def __init__(self, messages: list[str]) -> None:
        shown = [*messages[:_NAMED], *([f"and {len(messages) - _NAMED} more"] if len(messages) > _NAMED else [])]
        super().__init__("; ".join(shown))
        self.messages = messages


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The run stopped in good order after a signal; `message` says how to resume."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{message}")
        self.number = number


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise the `errors`, if there are any, as one; of those that are several themselves, each counts."""
    messages: list[str] = []
    for error in errors:
        messages += error.messages if isinstance(error, UserErrors) else [str(error)]
    if messages:
        raise UserErrors(messages)


def gathered(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """What the `checks` return.

    Raises:
        UserError: what the checks raise, as `raise_all`.
    """
    results, errors = [], []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            errors.append(error)
    raise_all(errors)
    return results
