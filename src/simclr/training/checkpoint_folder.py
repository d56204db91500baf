"""The folder of a run's checkpoints, which the same run finds again and no other.

A run is defined by its identity: parameters, input data, code and everything else that decides its result. Its
checkpoints are in a folder named after the identity's digest, which the run locks. They are not outs of the stage: DVC
would remove them, or restore others, before the run starts.
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
def open_checkpoints(
    root: Path, identity: Identity, seconds: float, on_wait: Callable[[], object]
) -> Iterator[Checkpoints]:
    """Open the checkpoints of the run `identity` below `root`, for this process alone while the context lasts.

    If another process has them, wait for it, and find its last checkpoint. Logs the process that it waits for, and the
    reason why the run starts at step 0 although there are checkpoints of other runs.

    Args:
        seconds: as in `Checkpoints`.
        on_wait: called repeatedly while waiting; may raise to end the wait.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = root / identity.folder
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            waited = stack.enter_context(run_lock.hold(folder, on_wait))
            _remove_finished(root, folder, keep=waited)
            atomic.write_bytes(folder / _IDENTITY, json.dumps(identity.parts, indent=2).encode())
            if not checkpoints.files(folder) and (reason := _why_not_resumed(root, identity)):
                _log.info(reason)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
        run_checkpoints = Checkpoints(folder, seconds)
        stack.callback(run_checkpoints.close)
        yield run_checkpoints


def _remove_finished(root: Path, own: Path, *, keep: bool) -> None:
    """Remove the checkpoints of finished runs, of `own` unless `keep`, and the partial files of a killed process in
    `own`."""
    for folder in root.iterdir():
        if checkpoints.results_committed(folder) and not (folder == own and keep):
            # This process holds the lock of `own`. Another folder is cleared under its lock, so that no process resumes
            # meanwhile, and only without processes that wait to do so.
            with (folder / run_lock.LOCK).open("a") as file:
                if folder == own or (run_lock.try_lock(file.fileno()) and not run_lock.has_waiters(folder)):
                    checkpoints.clear(folder)
    for path in own.glob(".*.part"):  # nobody else writes here under the lock
        path.unlink()


def _why_not_resumed(root: Path, identity: Identity) -> str:
    """The difference of `identity` to the run of the newest checkpoint in `root`; empty without any."""
    try:
        paths = [path for folder in root.iterdir() for path in checkpoints.files(folder)]
        newest = max(paths, key=lambda path: path.stat().st_mtime)  # a ValueError without any
        other = Identity(json.loads((newest.parent / _IDENTITY).read_bytes()))
    except (OSError, ValueError):  # such as of a file that its run has removed meanwhile
        return ""
    return f"starts from step 0: the last checkpoint, {newest}, is of {identity.difference(other)}"
