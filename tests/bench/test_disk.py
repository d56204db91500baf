"""The measurement of loading from a disk, on a file that memory holds."""

import sys
from pathlib import Path

import pytest
import torch
from benchmarks import disk, images
from benchmarks.contest import recipe
from benchmarks.loading import views_of

from simclr.core.errors import UserError
from simclr.views.stream import ViewStream
from tests.helpers.ranks import ALONE


@pytest.mark.parametrize("window", [None, 64])
def test_a_rate_and_what_was_read(tmp_path: Path, window: int | None) -> None:
    files = images.cut(tmp_path, 4)
    file = images.stored_files(tmp_path / "x.beton", files * 16)
    assert [
        file.data[start:][:size].tobytes() for start, size in zip(file.starts[4:], file.sizes[4:], strict=True)
    ] == [each.read_bytes() for each in files * 15]
    stream = ViewStream(file, (views_of(recipe("cifar10_smoke")),), torch.device("cpu"), window)
    rate, kilobytes = disk.measured(stream, ALONE, 0.05, "test")
    assert rate > 0
    assert 0 <= kilobytes < 1000


def test_a_file_that_memory_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["disk", "--gigabytes", "0.001", "--folder", str(tmp_path)])
    with pytest.raises(UserError, match=r"--gigabytes 0.001: more than half of the memory"):
        disk.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--gigabytes nan", "'nan' is no number above 0"),
        ("--seconds x", "'x' is no number above 0"),
        ("--windows 128 63", "at least a batch, 64"),
        ("--folder nowhere", "'nowhere' is no folder that can be written to"),
    ],
)
def test_arguments_that_are_refused(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["disk", *given.split()])
    with pytest.raises(SystemExit):
        disk.main()
    assert said in capsys.readouterr().err
