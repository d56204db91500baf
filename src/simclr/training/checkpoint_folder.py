"""Where a long run keeps its checkpoints, found again by the same run and by no other.

A run is known by its identity: its parameters, input data, code and what else decides its result. Its checkpoints
stand in a folder named after the identity's digest, which no other run looks into, and which it locks while it lasts.
They are nobody's outs: DVC would remove them, or bring back others, before the run begins.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from simclr.core import atomic
from simclr.core.errors import UserError
from simclr.training import checkpoints, run_lock
from simclr.training.checkpoints import Checkpoints
from simclr.training.run_identity import Identity

_IDENTITY = "identity.json"
_log = logging.getLogger(__name__)


@contextmanager
def opened(root: Path, identity: Identity, seconds: float, waits: Callable[[], object]) -> Iterator[Checkpoints]:
    """The checkpoints of the run `identity` among those in `root`, for this process alone while the context lasts.

    As long as another process has them, this one waits: it finds there what the other reached, be it the end. It
    logs whom it waits for; and where the run cannot go on from a checkpoint although there are some, and why.

    Args:
        seconds: as in `Checkpoints`.
        waits: called again and again while it waits; may raise to end that.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = root / identity.folder
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            waited = stack.enter_context(run_lock.held(folder, waits))
            _tidy(root, folder, keep=waited)
            atomic.write_bytes(folder / _IDENTITY, json.dumps(identity.parts, indent=2).encode())
            if not checkpoints.files(folder) and (reason := _others(root, identity)):
                _log.info(reason)
        except OSError as error:
            raise UserError(f"{folder}: cannot be used for checkpoints ({error.strerror or error})") from error
        kept = Checkpoints(folder, seconds)
        stack.callback(kept.close)
        yield kept


def _tidy(root: Path, own: Path, *, keep: bool) -> None:
    """Remove what runs left behind that are done, of `own` unless told to `keep` it, and what a killed process had half
    written in `own`.
    """
    for folder in root.iterdir():
        if checkpoints.collected(folder) and not (folder == own and keep):
            with (folder / run_lock.LOCK).open("a") as file:
                if folder == own or (run_lock.taken(file.fileno()) and not run_lock.awaited(folder)):
                    checkpoints.clear(folder)
    for path in own.glob(".*.part"):
        path.unlink()


def _others(root: Path, identity: Identity) -> str:
    """Why none of the other runs' checkpoints in `root` serves `identity`, by the newest; empty if there is none."""
    others = [path for folder in root.iterdir() for path in checkpoints.files(folder)]
    if not others:
        return ""
    newest = max(others, key=lambda path: path.stat().st_mtime)
    try:
        theirs = Identity(json.loads((newest.parent / _IDENTITY).read_bytes()))
    except (OSError, ValueError):
        return ""
    return f"starts from step 0: the last checkpoint, {newest}, is of {identity.difference(theirs)}"
