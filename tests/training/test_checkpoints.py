"""Checkpoints: found again whole by the run that wrote them, and by no other."""

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from simclr.core import atomic
from simclr.core.errors import Stopped, UserError
from simclr.training import checkpoint_folder, hashed_file, run_lock
from simclr.training.checkpoints import Checkpoints
from simclr.training.run_identity import Identity
from tests.helpers.logs import logged

SOUND = torch.tensor(True)
RUN = Identity({"parameters": {"pretrain.epochs": 80, "pretrain.split": "train"}, "data": {"train": "0" * 64}})


def changed(kind: str, name: str, value: Any) -> Identity:
    return Identity({**RUN.parts, kind: {**RUN.parts[kind], name: value}})


@contextmanager
def opened(root: Path, identity: Identity = RUN, said: list[str] | None = None) -> Iterator[Checkpoints]:
    with (
        logged(said if said is not None else []),
        checkpoint_folder.open_checkpoints(root, identity, 0.0, lambda: None) as checkpoints,
    ):
        yield checkpoints


def files(root: Path) -> list[Path]:
    return sorted((root / RUN.folder).glob("step-*"))


def saved(root: Path, *steps: int) -> None:
    with opened(root) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"step": step}, SOUND)
        checkpoints.flush()


def latest(root: Path, said: list[str] | None = None) -> Any:
    with opened(root, said=said) as checkpoints:
        return checkpoints.latest()


def test_what_was_saved_comes_back_as_it_was_then(tmp_path: Path) -> None:
    weights = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    state = {"a": [weights, {"b": torch.arange(3)}], "c": 0.1, "d": None, "e": [("tag", 3, 0.5)], 7: float("-inf")}
    expected = weights.clone()
    with opened(tmp_path) as checkpoints:
        checkpoints.save(12, state, SOUND)
        weights.zero_()  # training goes on while it is written
        state["c"] = 0.2
    found = latest(tmp_path)
    assert torch.equal(found["a"][0], expected)
    assert found["a"][0].stride() == expected.stride()
    assert torch.equal(found["a"][1]["b"], torch.arange(3))
    assert (found["c"], found["d"], found["e"], found[7]) == (0.1, None, [("tag", 3, 0.5)], float("-inf"))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 10, 9)
    assert [path.name.split("-")[1] for path in files(tmp_path)] == ["000000009", "000000010"]
    assert latest(tmp_path) == {"step": 10}


def test_none_at_first_and_none_off_the_leading_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert latest(tmp_path) is None
    monkeypatch.chdir(tmp_path)
    nobody = Checkpoints(None)
    nobody.save(1, {"step": 1}, SOUND)
    nobody.flush()
    nobody.finish(None)
    assert not nobody.due
    assert nobody.latest() is None


def test_weights_that_are_not_sound_are_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, {"step": 1}, SOUND)
        checkpoints.save(2, {"step": 2}, ~SOUND)
        checkpoints.flush()
        assert checkpoints.written == 1
        assert checkpoints.last == files(tmp_path)[0]
    assert latest(tmp_path) == {"step": 1}


def test_the_name_has_the_digest_of_what_was_written_in_parts(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoints:
        checkpoints.save(3, {"weights": torch.randn(300, 1000)}, SOUND)
    (path,) = files(tmp_path)
    assert path.name == f"step-000000003-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.pt"
    assert path.stat().st_size > 1_200_000


def test_a_disk_that_is_full_is_told_as_such() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        hashed = hashed_file.HashedFile(file)
        torch.save({"weights": torch.randn(300, 1000)}, hashed)
        with pytest.raises(OSError, match="No space left on device"):
            hashed.check()


@pytest.mark.parametrize("damage", ["cut", "emptied", "bit", "foreign"])
def test_a_damaged_one_is_set_aside_and_the_one_before_taken(damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 5, 6)
    newest = files(tmp_path)[1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:-100], "emptied": b"", "bit": content, "foreign": b"PK" * 50}[damage])
    said: list[str] = []
    assert latest(tmp_path, said) == {"step": 5}
    assert said == [f"{newest} is damaged and was set aside"]
    said.clear()
    assert latest(tmp_path, said) == {"step": 5}
    assert said == []


def test_if_all_are_damaged_the_run_ends_and_the_next_starts_anew(tmp_path: Path) -> None:
    saved(tmp_path, 5, 6)
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"every checkpoint is damaged; the same command starts from step 0 now"):
        latest(tmp_path)
    assert latest(tmp_path) is None


def test_a_write_that_fails_is_told_at_the_next_occasion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise UserError("step-1.pt: cannot be written (No space left on device)")

    with opened(tmp_path) as checkpoints:
        monkeypatch.setattr(atomic, "replacing", full)
        checkpoints.save(1, {}, SOUND)
        with pytest.raises(UserError, match="No space left"):
            checkpoints.save(2, {}, SOUND)
        checkpoints.flush()


def test_slow_checkpoints_are_rare(tmp_path: Path) -> None:
    with opened(tmp_path) as checkpoints:
        assert checkpoints.due
        checkpoints.save(1, {"weights": torch.zeros(2_000_000)}, SOUND)
        assert not checkpoints.due  # 200 times as long as the copying took
        assert checkpoints.waited > 0
        time.sleep(200 * checkpoints.waited + 0.01)
        assert checkpoints.due


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed("parameters", "pretrain.epochs", 40), "other parameters (pretrain.epochs 40, now 80)"),
        (changed("data", "train", "1" * 64), "other data (train)"),
        (Identity({"data": RUN.parts["data"]}), 'pretrain.epochs absent, now 80, pretrain.split absent, now "train"'),
    ],
)
def test_another_run_s_checkpoint_is_not_taken_and_it_says_why(other: Identity, words: str, tmp_path: Path) -> None:
    with opened(tmp_path, other) as checkpoints:
        checkpoints.save(3, {"step": 3}, SOUND)
    said: list[str] = []
    assert latest(tmp_path, said) is None
    assert len(said) == 1
    assert said[0].startswith("starts from step 0: the last checkpoint, ")
    assert words in said[0]
    saved(tmp_path, 1)
    said.clear()
    assert latest(tmp_path, said) == {"step": 1}
    assert said == []


def test_a_checkpoint_of_another_run_may_vanish_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "other" / "step-000000003.pt"
    monkeypatch.setattr(checkpoint_folder.checkpoints, "files", lambda folder: [gone] if folder == tmp_path else [])
    assert checkpoint_folder._why_not_resumed(tmp_path.parent, RUN) == ""


def hold(root: Path, witness: Path | None, line: Connection) -> None:
    with opened(root) as checkpoints:
        line.send("held")
        if line.poll(30) and line.recv() == "finish":
            checkpoints.save(9, {"step": 9}, SOUND)
            checkpoints.flush()
            checkpoints.finish(witness)


Holder = tuple[int, Connection]


@pytest.fixture
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Holder]:
    """Another process with the same identity, and the line to it, by which it finishes or lets go."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    witness = getattr(request, "param", None)
    process = context.Process(target=hold, args=(tmp_path, witness and tmp_path / witness, theirs))
    process.start()
    theirs.close()
    assert ours.poll(60)
    assert ours.recv() == "held"
    assert process.pid is not None
    yield process.pid, ours
    ours.close()
    process.join()


def test_a_second_process_of_the_run_waits_and_says_for_whom(
    holder: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def as_nfs_does(descriptor: int, operation: int) -> None:
        reads = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
        if operation & fcntl.LOCK_SH and not reads:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs_does)
    monkeypatch.setattr(run_lock, "_LOG_SECONDS", 1.2)
    said: list[str] = []
    calls: list[float] = []

    def waits() -> None:
        calls.append(time.monotonic())
        if len(said) == 3:
            raise Stopped(15, "")

    with logged(said), pytest.raises(Stopped), checkpoint_folder.open_checkpoints(tmp_path, RUN, 0.0, waits):
        pytest.fail("two processes have it")
    first, *later = said
    assert re.fullmatch(rf"process {holder[0]} on \S+ is running the same experiment; waiting for its result", first)
    assert later == [f"{first}, since 0 min"] * 2
    assert len(calls) > 5


@pytest.mark.parametrize("holder", [None, "dvc.lock"], indirect=True)
def test_it_takes_the_result_of_the_one_it_waited_for(holder: Holder, tmp_path: Path) -> None:
    """Be it that nobody collects the results, or that DVC has done so at once, or that a third run tidies up."""
    said: list[str] = []

    def waits() -> None:
        if not said[1:]:
            said.append("finish")
            holder[1].send("finish")
            os.waitpid(holder[0], 0)
            (tmp_path / "dvc.lock").write_text("stages:")
            with opened(tmp_path, changed("parameters", "pretrain.epochs", 1)):
                pass

    with logged(said), checkpoint_folder.open_checkpoints(tmp_path, RUN, 0.0, waits) as checkpoints:
        assert checkpoints.latest() == {"step": 9}


def test_one_that_waited_for_a_run_that_stopped_goes_on_alone(holder: Holder, tmp_path: Path) -> None:
    holder[1].send("let go")
    assert latest(tmp_path) is None


def test_a_process_that_was_killed_leaves_nothing_in_the_way(holder: Holder, tmp_path: Path) -> None:
    (tmp_path / RUN.folder / ".step-000000007-0123456789abcdef.pt.part").write_bytes(b"half")
    os.kill(holder[0], 9)
    assert latest(tmp_path) is None
    assert not list((tmp_path / RUN.folder).glob(".*"))


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which flock(2) fails."""
    refuse_flock(monkeypatch, request.param)


def refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_run_goes_on_from_its_checkpoints_and_says_what_is_not_guarded(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    said: list[str] = []
    assert latest(tmp_path, said) == {"step": 2}
    assert said == [
        f"{tmp_path / RUN.folder}: this file system has no locks, so nothing keeps a second run of the same experiment "
        "from spoiling these checkpoints; do not start one meanwhile"
    ]


@pytest.mark.usefixtures("without_locks")
def test_without_locks_checkpoints_of_another_run_stay_and_its_own_do_not(tmp_path: Path) -> None:
    """The other run may be going on from them."""
    finished(tmp_path, lock := tmp_path / "dvc.lock")
    lock.write_text("stages:")
    with opened(tmp_path, changed("parameters", "pretrain.epochs", 1)):
        assert len(files(tmp_path)) == 1
    with opened(tmp_path):
        assert files(tmp_path) == []


def test_another_failure_of_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_flock(monkeypatch, errno.EIO)
    with pytest.raises(UserError, match=r"cannot be written \(Input/output error\)$"), opened(tmp_path):
        pytest.fail("it has no lock")


def finished(root: Path, witness: Path | None) -> None:
    with opened(root) as checkpoints:
        checkpoints.save(9, {"step": 9}, SOUND)
        checkpoints.flush()
        checkpoints.finish(witness)


def test_the_last_checkpoint_stays_until_the_results_are_collected(tmp_path: Path) -> None:
    root, lock = tmp_path / "checkpoints", tmp_path / "dvc.lock"
    finished(root, lock)  # there is none yet
    assert latest(root) == {"step": 9}
    lock.write_text("stages:")
    assert latest(root) is None  # the same command again means: again from the start
    finished(root, lock)
    assert latest(root) == {"step": 9}
    os.utime(lock, ns=(1, 1))
    assert latest(root) is None


def test_with_a_temporary_workspace_goes_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    finished(tmp_path / "checkpoints", tmp_path / "temp" / "dvc.lock")
    assert latest(tmp_path / "checkpoints") == {"step": 9}
    (tmp_path / "temp").rmdir()
    assert latest(tmp_path / "checkpoints") is None


def test_where_nobody_collects_nothing_stays(tmp_path: Path) -> None:
    finished(tmp_path, None)
    assert files(tmp_path) == []


def test_what_other_runs_left_behind_is_removed_once_collected(tmp_path: Path) -> None:
    root, lock = tmp_path / "checkpoints", tmp_path / "dvc.lock"
    finished(root, lock)
    other = changed("parameters", "pretrain.epochs", 1)
    with opened(root, other):
        assert len(files(root)) == 1
    lock.write_text("stages:")
    with opened(root, other):
        assert files(root) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/.*: cannot be written \(Not a directory\)"):
        latest(tmp_path / "file")


def test_the_identity_is_there_to_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    assert json.loads((tmp_path / RUN.folder / "identity.json").read_text()) == RUN.parts
