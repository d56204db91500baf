"""How a script ends: with one line on stderr and exit code 1 where something outside it is wrong.

Without `simclr.core.entry`, since a review runs where DVC alone is.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def run(main: Callable[[], None]) -> None:
    """Call `main`. A full disk exits with one line and code 1, Ctrl-C with one line and 128 + SIGINT; a closed pipe
    ends the script silently."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            main()
        finally:
            if sys.stdout is not None:  # as it is where the caller has closed it
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        if not error.filename:  # else the interpreter would fail to flush it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        die(f"{error.filename or 'stdout'}: cannot be written ({error.strerror})")
    except KeyboardInterrupt:
        print(f"{_name()}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def die(message: str) -> NoReturn:
    """Exit with `message` in one line and code 1."""
    sys.exit(f"{_name()}: {' '.join(message.split())}")


def _name() -> str:
    return Path(sys.argv[0]).name
