"""Errors that are the user's to mend: one clear line on stderr and a non-zero exit code, never a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something outside the code is wrong. One line: the key or file, what was wrong with it, what is allowed."""


def run(stage: str, main: Callable[[], None]) -> None:
    """Call `main`, the whole of a stage; a `UserError` in it ends the process with one line and exit code 1.

    Any other exception is a bug of ours and keeps its traceback.
    """
    try:
        main()
    except UserError as error:
        line = " ".join(str(error).split())
        print(f"{stage}: error: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{stage}: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
