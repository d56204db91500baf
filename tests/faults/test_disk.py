"""A stage that cannot write says so in one line and leaves nothing half-made: what was there before stays, or what has
come in its place is whole; and the next run is right.
"""

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.programs import STAGES, expected, made, ready, run

OLD = b"what was there before"


def _system(call: str, *arguments: object) -> None:
    """A system call that Python 3.11 does not know."""
    if getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments):
        raise OSError(ctypes.get_errno(), call)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file may become larger than `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    yield


@contextmanager
def without_privileges() -> Iterator[None]:
    """Permission bits bind root as well, which has given up its capabilities."""
    version_3, none_at_all = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    _system("capset", version_3, none_at_all)
    yield


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    for path in folders:
        path.chmod(0o555)
    yield
    for path in folders:
        path.chmod(0o755)


LIMITS = [
    ("fetch", 100_000, "data/raw: "),
    ("convert", 1_000_000, "data/"),
    ("pretrain", 15_000, "runs/tested/pretrain: "),
    ("pretrain", 100_000, "checkpoints/"),
    ("embed", 20_000, "data/features: "),
    ("linear_eval", 5_000, "data/scores.safetensors: "),
    ("draw", 5_000, "reports/draw/samples/"),
    ("card", 2_000, "reports/card/model_card.md: "),
]


@pytest.mark.parametrize(("name", "limit", "where"), LIMITS)
def test_without_room_and_then_without_permission(
    name: str, limit: int, where: str, done: Path, tmp_path: Path
) -> None:
    ready(name, done, tmp_path)
    right = expected(name, done)
    for path in right:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(OLD)

    error = run(name, tmp_path, partial(small_files, limit)).error
    assert error.removeprefix(f"{tmp_path}/").startswith(where)
    assert "cannot be written (File too large)" in error
    left = made(tmp_path)
    assert left.keys() == right.keys()
    assert all(content in (OLD, right[path]) for path, content in left.items())

    with read_only(tmp_path):
        error = run(name, tmp_path, without_privileges).error
    assert "cannot be" in error
    assert "(Permission denied)" in error
    assert made(tmp_path) == left

    assert run(name, tmp_path).code == 0
    assert made(tmp_path) == right


NOT_PERMITTED = 77


@contextmanager
def small_disk(kilobytes: int, folder: Path, copy: Path) -> Iterator[None]:
    """At `folder` a file system of that size, for this process alone, with the content of `copy`; which in the end gets
    what has become of it.
    """
    try:
        _private_mounts()
        _system("mount", b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={kilobytes}k".encode())
    except PermissionError:
        sys.exit(NOT_PERMITTED)
    shutil.copytree(copy, folder, symlinks=True, dirs_exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        shutil.rmtree(copy)
        shutil.copytree(folder, copy, symlinks=True)


def _private_mounts() -> None:
    """What this process mounts from here on is seen by nobody else, and gone with it."""
    user, group = os.getuid(), os.getgid()
    new_mounts, new_user, recursive, private = 0x20000, 0x10000000, 0x4000, 0x40000
    _system("unshare", new_mounts | (new_user if user else 0))
    if user:  # in a name space of its own anybody may mount
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(content)
    _system("mount", b"none", b"/", None, recursive | private, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_disk_that_is_full_at_any_moment(name: str, done: Path, tmp_path: Path) -> None:
    right = expected(name, done)
    folder, copy = tmp_path / "disk", tmp_path / "copy"
    folder.mkdir()
    kilobytes, failures = 16.0, 0
    while True:
        copy.mkdir()
        ready(name, done, copy)
        ended = run(name, folder, partial(small_disk, int(kilobytes), folder, copy))
        if ended.code == NOT_PERMITTED:
            pytest.skip("mounting a file system is not permitted here")
        if ended.code == 0:
            break
        assert "cannot be written (No space left on device)" in ended.error
        left = made(copy)
        assert left == {path: right[path] for path in left}
        assert run(name, copy).code == 0
        assert made(copy) == right
        shutil.rmtree(copy)
        kilobytes, failures = 1.25 * kilobytes, failures + 1
    assert made(copy) == right
    assert failures >= 2
