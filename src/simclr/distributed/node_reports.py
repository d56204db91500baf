"""How each node of a step ended: one file per node, in a folder that all nodes share.

What ends a node may be a full disk, so there is room for every report before the nodes start. A file system that copies
on write can refuse a report all the same; the node says it on stderr then.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from simclr.core.errors import UserError

_LONGEST = 1000
"""Characters of a message, each of at most 12 bytes in JSON."""
_ROOM = 16 * 1024
"""Bytes of a file."""


@contextmanager
def open_folder(count: int) -> Iterator[Path]:
    """A new folder below `runs` with room for the reports of `count` nodes, removed at the end.

    Raises:
        UserError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            Path("runs").mkdir(exist_ok=True)
            folder = stack.enter_context(TemporaryDirectory(prefix=".nodes-", dir="runs", ignore_cleanup_errors=True))
            for node in range(count):
                with Path(folder, str(node)).open("wb") as file:
                    file.write(b" " * _ROOM)
                    file.flush()
                    os.fsync(file.fileno())  # NFS finds out here that there is no room
        except OSError as error:
            raise UserError(f"runs: cannot be written ({error.strerror or error})") from error
        yield Path(folder).resolve()


def write(folder: Path, node: int, number: int, message: str) -> None:
    """Leave the number of the signal after which the node stopped, 0 for an error, and the message."""
    try:
        with (folder / str(node)).open("r+b") as file:
            file.write(json.dumps([number, message[:_LONGEST]]).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        print(f"node {node}: {message}; it cannot be reported ({error.strerror or error})", file=sys.stderr)  # noqa: T201


def read(folder: Path, count: int) -> dict[int, tuple[int, str]]:
    """The signal's number, or 0, and the message of every node that left a whole report."""
    reports = {}
    for node in range(count):
        try:
            number, message = json.loads((folder / str(node)).read_bytes())
        except (OSError, ValueError):
            continue
        reports[node] = (number, message)
    return reports
