"""Checkpoints of a long run: written in the background, found again by the same run and by no other.

A run is known by its identity: its parameters, input data, code and what else decides its result. Its checkpoints
stand in a folder named after the identity's digest, which no other run looks into, and which it locks while it lasts.
They are nobody's outs: DVC would remove them, or bring back others, before the run begins.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO, cast

import torch
from torch import Tensor

from simclr import atomic, fingerprint
from simclr.failure import UserError

_KEPT = 2
_SHARE = 0.005
"""Training waits for checkpoints at most this share of its time: where they are slow there are fewer."""
_TOLD_SECONDS = 600
"""How often a run says that it still waits for another process with the same identity."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")
_IDENTITY, _FINISHED, _LOCK, _AWAITED = "identity.json", "finished.json", "lock", "awaited"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Identity:
    """What makes a run that run: named values of several kinds, as {"parameters": {"pretrain.epochs": 80}, ...}."""

    parts: dict[str, dict[str, Any]]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return fingerprint.of_values(self.parts)[:16]

    def difference(self, other: "Identity") -> str:
        """How `other` differs, in a few words, such as "other parameters (pretrain.epochs 40, now 80)"."""
        kinds = []
        for kind, values in self.parts.items():
            theirs = other.parts.get(kind, {})
            changed = [name for name in {**values, **theirs} if values.get(name) != theirs.get(name)]
            if changed:
                kinds.append(f"other {kind} ({_some([_change(name, theirs, values) for name in changed])})")
        return " and ".join(kinds)


def _change(name: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    values = [values.get(name) for values in (before, now)]
    digests = any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in values)
    return name if digests else f"{name} {values[0]}, now {values[1]}"


def _some(words: list[str], most: int = 3) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


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

    def latest(self, say: Say) -> Any | None:
        """What `save` was given last, tensors on the CPU; None if there is nothing.

        A damaged file is set aside, `say` says so, and the one before it is taken.

        Raises:
            UserError: there are some, but all are damaged; then they are set aside.
        """
        found = _files(self._folder) if self._folder else []
        for path in reversed(found):
            content = _read(path)
            if hashlib.sha256(content).hexdigest().startswith(_digest(path)):
                self.last = path
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            path.replace(path.with_suffix(".damaged"))
            say(f"{path} is damaged and was set aside")
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
            if not _awaited(self._folder):
                _clear(self._folder)
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
        with atomic.appearing(unnamed) as temporary, temporary.open("wb") as file:
            hashed = _Hashed(file)
            torch.save(state, cast(IO[bytes], hashed))
            hashed.check()
        path = folder / f"step-{step:09d}-{hashed.digest.hexdigest()[:16]}.pt"
        with atomic.appearing(path) as temporary:
            unnamed.replace(temporary)
        self.last = path
        self.written += 1
        for old in _files(folder)[:-_KEPT]:
            old.unlink()


class _Hashed:
    """A file that is hashed as it is written, both without the GIL: training goes on meanwhile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, part: memoryview) -> int:
        self.digest.update(part)
        try:
            self._file.write(part)
        except OSError as error:  # kept, because torch.save would make a RuntimeError of it
            self._error = self._error or error
        return part.nbytes

    def flush(self) -> None:
        pass

    def check(self) -> None:
        """Raise what `write` could not."""
        if self._error:
            raise self._error


@contextmanager
def opened(
    root: Path, identity: Identity, seconds: float, say: Say, waits: Callable[[], object]
) -> Iterator[Checkpoints]:
    """The checkpoints of the run `identity` among those in `root`, for this process alone while the context lasts.

    As long as another process has them, this one waits: it finds there what the other reached, be it the end. `say` is
    told whom it waits for; and where the run cannot go on from a checkpoint although there are some, and why.

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
            waited = stack.enter_context(_locked(folder, say, waits))
            _tidy(root, folder, keep=waited)
            atomic.write_bytes(folder / _IDENTITY, json.dumps(identity.parts, indent=2).encode())
            if not _files(folder) and (reason := _others(root, identity)):
                say(reason)
        except OSError as error:
            raise UserError(f"{folder}: cannot be used for checkpoints ({error.strerror or error})") from error
        checkpoints = Checkpoints(folder, seconds)
        stack.callback(checkpoints.close)
        yield checkpoints


def _tidy(root: Path, own: Path, *, keep: bool) -> None:
    """Remove what runs left behind that are done, of `own` unless told to `keep` it, and what a killed process had half
    written in `own`.
    """
    for folder in root.iterdir():
        if _collected(folder) and not (folder == own and keep):
            with (folder / _LOCK).open("a") as file:
                if folder == own or (_taken(file.fileno()) and not _awaited(folder)):
                    _clear(folder)
    for path in own.glob(".*.part"):
        path.unlink()


@contextmanager
def _locked(folder: Path, say: Say, waits: Callable[[], object]) -> Iterator[bool]:
    """Hold `folder`, once no other process does; yields whether one did.

    The kernel lets go of it when the process ends, however it does. Until then those who wait share a lock of their
    own, by which the one before them knows that its last checkpoint is needed.
    """
    with (folder / _LOCK).open("a+") as file:
        waited = not _taken(file.fileno())
        if waited:
            with (folder / _AWAITED).open("a") as awaited:
                fcntl.flock(awaited, fcntl.LOCK_SH)
                _wait_for(file, say, waits)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield waited


def _wait_for(file: TextIO, say: Say, waits: Callable[[], object]) -> None:
    """Wait for the lock on `file`, in which its holder has written who it is."""
    began, told = time.monotonic(), -math.inf
    while not _taken(file.fileno()):
        now = time.monotonic()
        if now - told > _TOLD_SECONDS:
            file.seek(0)
            holder = file.read() or "another process"
            since = f", since {(now - began) / 60:.0f} min" if now - began > 1 else ""
            say(f"{holder} is at this very run; waits for its result{since}")
            told = now
        waits()
        time.sleep(0.2)


def _awaited(folder: Path) -> bool:
    """Whether a process waits for the one that holds `folder`."""
    if not (folder / _AWAITED).exists():
        return False
    with (folder / _AWAITED).open("a") as awaited:
        return not _taken(awaited.fileno())


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _others(root: Path, identity: Identity) -> str:
    """Why none of the other runs' checkpoints in `root` serves `identity`, by the newest; empty if there is none."""
    others = [path for folder in root.iterdir() for path in _files(folder)]
    if not others:
        return ""
    newest = max(others, key=lambda path: path.stat().st_mtime)
    try:
        theirs = Identity(json.loads((newest.parent / _IDENTITY).read_bytes()))
    except (OSError, ValueError):
        return ""
    return f"starts from step 0: the last checkpoint, {newest}, is of {identity.difference(theirs)}"


def _collected(folder: Path) -> bool:
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


def _clear(folder: Path) -> None:
    """Remove the checkpoints in `folder`, not the locks, which somebody may be waiting for."""
    for path in folder.iterdir():
        if path.name not in (_LOCK, _AWAITED):
            path.unlink()


def _files(folder: Path) -> list[Path]:
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
