"""The entry point of a stage: failures end in one line on stderr and a non-zero exit code.

Tracebacks are for our own bugs only.
"""

import errno
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

from simclr.core import atomic, exit_with_parent, processor
from simclr.core.errors import Stopped, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OUT_OF_REACH = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE,
)  # fmt: skip
"""Errors of a file that a stage may meet wherever it looks at one, as in a folder that it may not enter."""


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook that prints one line for Ctrl-C during imports."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).stem}: interrupted", file=sys.stderr)  # noqa: T201
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _excepthook


def run(stage: str, main: Callable[[], None]) -> None:
    """Run a stage, `main`; it also ends when its parent process does.

    A `UserError` exits with one line and code 1, as do a full disk and a file out of reach; a signal with one line and
    128 + its number, a closed stdout or stderr silently with 128 + SIGPIPE. Any other exception is a bug of ours and
    keeps its traceback. Under torchrun, whose agent reports for all its processes, the line or traceback goes into the
    agent's error file.
    The line on a signal also goes into the file STOPPED_FILE, if the environment names one.
    """
    exit_with_parent.watch()
    _log_to_stderr(stage)
    try:
        if reason := processor.environment_error():
            raise UserError(reason)
        try:
            main()
        except SystemExit:  # as of argparse, after its help
            _flush_stdout()
            raise
        _flush_stdout()
    except UserError as error:
        _exit_with(f"{stage}: error: {error}", 1)
    except Stopped as stop:
        _exit_with(f"{stage}: {stop}{_mark_stopped(f'{stage}: {stop}')}", 128 + stop.number)
    except KeyboardInterrupt:
        _exit_with(f"{stage}: interrupted", 128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            os._exit(128 + signal.SIGPIPE)  # at once: the interpreter would try again to flush the buffers
        if isinstance(error, OSError) and error.errno in _FULL:
            _give_up_stdout_if_full()
            where = error.filename or "stdout or a temporary file"
            _exit_with(f"{stage}: error: {where}: cannot be written ({error.strerror})", 1)
        if isinstance(error, OSError) and error.errno in _OUT_OF_REACH and error.filename:
            _exit_with(f"{stage}: error: {error.filename}: {error.strerror}", 1)
        if not _report_to_agent(f"{type(error).__name__}: {error}", traceback.format_exc()):
            raise
        sys.exit(1)


def _flush_stdout() -> None:
    if sys.stdout is not None:  # as it is where the caller has closed it
        sys.stdout.flush()


def _give_up_stdout_if_full() -> None:
    """Else the interpreter would fail to flush it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_to_stderr(stage: str) -> None:
    """Print the library's log messages after the name of the stage."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{stage}: %(message)s"))
    logger = logging.getLogger("simclr")
    logger.handlers, logger.level = [handler], logging.INFO


def _reader_is_gone() -> bool:
    """Whether stdout or stderr is a pipe whose reader is gone."""
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in pipes.poll(0))


def _exit_with(message: str, code: int) -> None:
    line = " ".join(message.split())
    if not _report_to_agent(line):
        print(line, file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _mark_stopped(line: str) -> str:
    """Write `line` to STOPPED_FILE, which tells a job's script to queue the job again; return why that failed."""
    file = os.environ.get("STOPPED_FILE")
    if not file or "TORCHELASTIC_ERROR_FILE" in os.environ:  # a worker; its agent has the last word
        return ""
    try:
        Path(file).write_text(f"{line}\n", encoding="utf-8")
    except OSError as error:
        return f"; STOPPED_FILE = {file} cannot be written ({error.strerror})"
    return ""


def _report_to_agent(message: str, callstack: str = "") -> bool:
    """Write `message` to the error file of torchrun's agent; return False without an agent."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return False
    # the format of torch.distributed.elastic.multiprocessing.errors.ErrorHandler, whose import takes a second
    details = {"py_callstack": callstack or message, "timestamp": str(int(time.time()))}
    report = json.dumps({"message": {"message": message, "extraInfo": details}})
    atomic.write_bytes(Path(file), report.encode())  # the agent reads it also if this process is killed here
    return True
