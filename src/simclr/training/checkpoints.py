"""The checkpoints of one run in its folder: written in the background, the newest that is whole found again."""

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
_SHARE = 0.005
"""Training waits for checkpoints at most this share of its time: where they are slow there are fewer."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")
_FINISHED = "finished.json"
_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints in a `folder`; without one (off rank 0) there are none and every method does nothing.

    `seconds` pass between two of them, or more where a checkpoint takes long.
    """

    def __init__(self, folder: Path | None, seconds: float = 0.0) -> None:
        self._folder, self._seconds = folder, seconds
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._due_at = time.monotonic() + seconds
        self.last: Path | None = None
        """The newest that is known to be whole."""
        self.written = 0
        self.waited = 0.0
        """Seconds that the run waited for checkpoints, all together."""

    @property
    def due(self) -> bool:
        return self._folder is not None and time.monotonic() >= self._due_at

    def latest(self) -> Any | None:
        """What `save` was given last, tensors on the CPU; None if there is nothing.

        A damaged file is set aside, which is logged, and the one before it is taken.

        Raises:
            UserError: there are some, but all are damaged; then they are set aside.
        """
        found = files(self._folder) if self._folder else []
        for path in reversed(found):
            content = _read(path)
            if hashlib.sha256(content).hexdigest().startswith(_digest(path)):
                self.last = path
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            path.replace(path.with_suffix(".damaged"))
            _log.warning(f"{path} is damaged and was set aside")
        if found:
            raise UserError(f"{self._folder}: every checkpoint is damaged; the same command starts from step 0 now")
        return None

    def save(self, step: int, state: Any, sound: Tensor) -> None:
        """Keep `state`, nested dicts and lists of tensors and plain values, as it is now; it is written meanwhile.

        `sound` is a truth value on the device: if false, as is known when the copies have arrived, nothing is written.

        Raises:
            UserError: the one before could not be written.
        """
        if self._folder is None:
            return
        began = time.perf_counter()
        self.flush()
        copies, sound, ready = _copied(state), sound.clone(), _event(sound.device)
        self._writing = self._pool.submit(self._write, self._folder, step, copies, sound, ready)
        seconds = time.perf_counter() - began
        self.waited += seconds
        self._due_at = time.monotonic() + max(self._seconds, seconds / _SHARE)

    def flush(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            UserError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Let the write in progress end, whatever comes of it."""
        self._pool.shutdown()

    def finish(self, witness: Path | None) -> None:
        """The run is done and its results are written.

        The last checkpoint stays until they have been collected, which DVC shows by writing `witness`, its lock file:
        killed before that, the run goes on from there. With None nobody collects them. A process that waits for this
        one takes the checkpoint in any case.
        """
        if self._folder is None:
            return
        if witness is None:
            if not run_lock.awaited(self._folder):
                clear(self._folder)
        else:
            state = {"witness": str(witness.absolute()), "written": _written(witness)}
            atomic.write_bytes(self._folder / _FINISHED, json.dumps(state).encode())

    def _write(self, folder: Path, step: int, state: Any, sound: Tensor, ready: "torch.cuda.Event | None") -> None:
        if ready is not None:
            # beside the training's stream, which goes on meanwhile
            with torch.cuda.stream(torch.cuda.Stream(sound.device)):
                ready.wait()
                state, sound = _on_host(state), sound.cpu()
        if not sound:
            return
        torch.serialization.set_crc32_options(False)  # a checksum of its own, which is computed under the GIL
        unnamed = folder / f".step-{step:09d}.part"
        with atomic.replacing(unnamed) as temporary, temporary.open("wb") as file:
            hashed = HashedFile(file)
            torch.save(state, cast(IO[bytes], hashed))
            hashed.check()
        path = folder / f"step-{step:09d}-{hashed.digest.hexdigest()[:16]}.pt"
        with atomic.replacing(path) as temporary:
            unnamed.replace(temporary)
        self.last = path
        self.written += 1
        for old in files(folder)[:-_KEPT]:
            old.unlink()


def collected(folder: Path) -> bool:
    """Whether the run in `folder` is done, and DVC has taken its results, or they are gone with their workspace."""
    try:
        finished = json.loads((folder / _FINISHED).read_bytes())
        witness = Path(finished["witness"])
        return _written(witness) != finished["written"] or not witness.parent.exists()
    except (OSError, ValueError, KeyError):
        return False


def _written(path: Path) -> int | None:
    """When `path` was last written, in nanoseconds; None if it is not there."""
    return path.stat().st_mtime_ns if path.exists() else None


def clear(folder: Path) -> None:
    """Remove the checkpoints in `folder`, not the locks, which somebody may be waiting for."""
    for path in folder.iterdir():
        if path.name not in run_lock.FILES:
            path.unlink()


def files(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the oldest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (int(path.name.split("-")[1]), path.stat().st_mtime_ns))


def _digest(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    assert match
    return match[2]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # as good as damaged


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in its dicts and lists changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    return value


def _copied(state: Any) -> Any:
    return _mapped(state, lambda tensor: tensor.detach().clone())


def _on_host(state: Any) -> Any:
    return _mapped(state, Tensor.cpu)


def _event(device: torch.device) -> "torch.cuda.Event | None":
    """What to wait for until the copies that were just asked for are made."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
