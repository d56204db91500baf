"""The checkpoints of one run: written in the background, resumed from the newest intact one."""

import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from simclr.core import atomic
from simclr.core.errors import UserError
from simclr.training import run_lock
from simclr.training.hashed_file import HashedFile

_KEPT = 2
_MAX_SHARE = 0.005
"""The largest share of its time that training waits for checkpoints: slow ones become rarer."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")
_FINISHED = "finished.json"
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in a `folder`; without a folder (off rank 0) every method is a no-op.

    `seconds` is the interval between two checkpoints, which grows if they are slow.
    """

    def __init__(self, folder: Path | None, seconds: float = 0.0) -> None:
        self._folder, self._seconds = folder, seconds
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._due_at = time.monotonic() + seconds
        self.last: Path | None = None
        """The newest checkpoint that is known to be intact."""
        self.written = 0
        self.waited = 0.0
        """Total seconds that the run waited for checkpoints."""

    @property
    def due(self) -> bool:
        return self._folder is not None and time.monotonic() >= self._due_at

    def latest(self) -> Any | None:
        """Load the newest intact checkpoint, with tensors on the CPU; None if there is no checkpoint.

        A damaged file is renamed and logged, and the one before it is loaded.

        Raises:
            UserError: all checkpoints are damaged; they are renamed.
        """
        paths = files(self._folder) if self._folder else []
        for path in reversed(paths):
            content = _read(path)
            if hashlib.sha256(content).hexdigest().startswith(_digest(path)):
                self.last = path
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            path.replace(path.with_suffix(".damaged"))
            _log.warning(f"{path} is damaged and was set aside")
        if paths:
            raise UserError(f"{self._folder}: every checkpoint is damaged; the same command starts from step 0 now")
        return None

    def save(self, step: int, state: Any, finite: Tensor) -> None:
        """Copy `state`, nested dicts and lists of tensors and plain values, and write the copy in the background.

        `finite` is a boolean on the device, read in the background too: if it is false, nothing is written.

        Raises:
            UserError: the previous checkpoint could not be written.
        """
        if self._folder is None:
            return
        began = time.perf_counter()
        self.flush()
        copies, finite, ready = _snapshot(state), finite.clone(), _record_event(finite.device)
        self._writing = self._pool.submit(self._write, self._folder, step, copies, finite, ready)
        seconds = time.perf_counter() - began
        self.waited += seconds
        self._due_at = time.monotonic() + max(self._seconds, seconds / _MAX_SHARE)

    def flush(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            UserError: the checkpoint could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait for the current write, and ignore its errors."""
        self._pool.shutdown()

    def finish(self, dvc_lock: Path | None) -> None:
        """Mark the run as done, after its results are written.

        The last checkpoint stays until DVC has committed the results, which it shows by writing `dvc_lock`, its lock
        file: if killed before that, the run resumes from the checkpoint. With None nothing commits them, and the
        checkpoint is removed, unless a process waits for it.
        """
        if self._folder is None:
            return
        if dvc_lock is None:
            if not run_lock.has_waiters(self._folder):
                clear(self._folder)
        else:
            state = {"dvc_lock": str(dvc_lock.absolute()), "written": _mtime_ns(dvc_lock)}
            atomic.write_bytes(self._folder / _FINISHED, json.dumps(state).encode())

    def _write(self, folder: Path, step: int, state: Any, finite: Tensor, ready: "torch.cuda.Event | None") -> None:
        if ready is not None:
            # on a stream of its own, beside the training's
            with torch.cuda.stream(torch.cuda.Stream(finite.device)):
                ready.wait()
                state, finite = _to_cpu(state), finite.cpu()
        if not finite:
            return
        # torch's checksum is computed under the GIL; the digest in the name replaces it
        torch.serialization.set_crc32_options(False)
        partial = folder / f".step-{step:09d}.part"
        # Two renames: the name has the digest, which is known only after the write, and a file under a final name is
        # always whole.
        with atomic.replacing(partial) as temporary, temporary.open("wb") as file:
            hashed = HashedFile(file)
            torch.save(state, cast(IO[bytes], hashed))
            hashed.check()
        path = folder / f"step-{step:09d}-{hashed.digest.hexdigest()[:16]}.pt"
        with atomic.replacing(path) as temporary:
            partial.replace(temporary)
        self.last = path
        self.written += 1
        # Rotation, only after the new file is complete: should it prove damaged, the one before it is still there.
        for old in files(folder)[:-_KEPT]:
            old.unlink()


def results_committed(folder: Path) -> bool:
    """Whether the run in `folder` is done, and DVC has committed its results or their workspace is gone."""
    try:
        finished = json.loads((folder / _FINISHED).read_bytes())
        dvc_lock = Path(finished["dvc_lock"])
        # `dvc_lock` has another time stamp once DVC has written it after the run
        return _mtime_ns(dvc_lock) != finished["written"] or not dvc_lock.parent.exists()
    except (OSError, ValueError, KeyError):
        return False


def _mtime_ns(path: Path) -> int | None:
    """The modification time of `path` in nanoseconds; None if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else None


def clear(folder: Path) -> None:
    """Remove the checkpoints in `folder`; its locks stay, because another process may be waiting for them."""
    for path in folder.iterdir():
        if path.name not in run_lock.FILES:
            path.unlink()


def files(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the oldest first."""
    paths = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (int(path.name.split("-")[1]), path.stat().st_mtime_ns))


def _digest(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    assert match
    return match[2]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # unreadable: its digest will not match


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function` applied to every tensor in its dicts and lists."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_tensors(item, function) for item in value]
    return value


def _snapshot(state: Any) -> Any:
    return _map_tensors(state, lambda tensor: tensor.detach().clone())


def _to_cpu(state: Any) -> Any:
    return _map_tensors(state, Tensor.cpu)


def _record_event(device: torch.device) -> "torch.cuda.Event | None":
    """An event after the copies that are queued on the current stream; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
