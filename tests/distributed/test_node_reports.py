"""What nodes report on a disk that is full, and what the first node makes of half a report."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simclr.core.errors import UserError
from simclr.distributed import node_reports


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def no_larger_file_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_reports_of_all_nodes_are_read_and_the_folder_is_gone_afterwards(folder: Path) -> None:
    with node_reports.open_folder(3) as reports:
        node_reports.write(reports, 0, 0, "params.yaml: no")
        node_reports.write(reports, 2, 10, "; again")
        assert node_reports.read(reports, 3) == {0: (0, "params.yaml: no"), 2: (10, "; again")}
    assert list((folder / "runs").iterdir()) == []


@pytest.mark.parametrize("message", ["x" * 5000, "ü" * 5000, "\N{GRINNING FACE}" * 5000])
def test_a_report_takes_no_more_room_than_there_is(message: str) -> None:
    with node_reports.open_folder(1) as reports:
        before = (reports / "0").stat().st_size
        node_reports.write(reports, 0, 0, message)
        assert (reports / "0").stat().st_size == before
        assert node_reports.read(reports, 1) == {0: (0, message[:1000])}


def test_a_disk_without_room_for_the_reports_is_an_error_before_anything_starts(folder: Path) -> None:
    with (
        pytest.raises(UserError, match=r"^runs: cannot be written \(File too large\)$"),
        no_larger_file_than(1000),
        node_reports.open_folder(2),
    ):
        pytest.fail("there is no room")
    assert list((folder / "runs").iterdir()) == []


def test_a_node_whose_report_is_refused_says_it_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a full file system that copies on write."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with node_reports.open_folder(2) as reports:
        monkeypatch.setattr(os, "fsync", refuse)
        node_reports.write(reports, 1, 0, "checkpoints/x: cannot be written (No space left on device)")
    assert capsys.readouterr().err == (
        "node 1: checkpoints/x: cannot be written (No space left on device); "
        "it cannot be reported (No space left on device)\n"
    )


@pytest.mark.parametrize("content", [b"", b"[0, ", b"\xff", None])
def test_half_a_report_is_none(content: bytes | None) -> None:
    with node_reports.open_folder(2) as reports:
        node_reports.write(reports, 1, 0, "no")
        (reports / "0").unlink() if content is None else (reports / "0").write_bytes(content)
        assert node_reports.read(reports, 2) == {1: (0, "no")}
