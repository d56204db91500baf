"""How a stage ends when it cannot go on: one clear line on stderr and a non-zero exit code.

Tracebacks are for our own bugs only.
"""

import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from simclr.core import exit_with_parent, processor
from simclr.core.errors import Stopped, UserError


def _interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What is printed where an exception ends the program: of Ctrl-C while it still imports, one line."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).stem}: interrupted", file=sys.stderr)  # noqa: T201
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _interrupted


def run(stage: str, main: Callable[[], None]) -> None:
    """Call `main`, the whole of a stage, which ends with the process that started it.

    A `UserError` ends it with one line and exit code 1, a signal with one line and 128 + its number; a stdout or
    stderr that nobody reads any more does so without a line. Any other exception is a bug of ours and keeps its
    traceback. Under torchrun, whose agent reports for all its processes, both go into the file that the agent reads.
    """
    exit_with_parent.watch()
    _log_to_stderr(stage)
    try:
        if reason := processor.refused():
            raise UserError(reason)
        main()
        sys.stdout.flush()
    except UserError as error:
        _end(f"{stage}: error: {error}", 1)
    except Stopped as stop:
        _end(f"{stage}: {stop}", 128 + stop.number)
    except KeyboardInterrupt:
        _end(f"{stage}: interrupted", 128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            os._exit(128 + signal.SIGPIPE)  # at once: the interpreter would try again to write what is left
        if not _left_for_agent(f"{type(error).__name__}: {error}", traceback.format_exc()):
            raise
        sys.exit(1)


def _log_to_stderr(stage: str) -> None:
    """Have what the library logs printed after the name of the stage."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{stage}: %(message)s"))
    logger = logging.getLogger("simclr")
    logger.handlers, logger.level = [handler], logging.INFO


def _unread() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more."""
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in pipes.poll(0))


def _end(message: str, code: int) -> None:
    line = " ".join(message.split())
    if not _left_for_agent(line):
        print(line, file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _left_for_agent(message: str, callstack: str = "") -> bool:
    """Leave `message` for torchrun's agent; False if there is none."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return False
    # as torch.distributed.elastic.multiprocessing.errors.ErrorHandler, whose import takes a second
    details = {"py_callstack": callstack or message, "timestamp": str(int(time.time()))}
    Path(file).write_text(json.dumps({"message": {"message": message, "extraInfo": details}}), encoding="utf-8")
    return True
