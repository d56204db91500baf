"""The measurement of loading from a disk, on a file that memory holds."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from benchmarks import disk, images

from simclr.core.errors import UserError
from simclr.data.beton import Beton
from simclr.data.sampling import Indices
from simclr.views import stream
from tests.helpers.programs import ROOT


@pytest.mark.parametrize("window", [None, 64])
def test_the_rate_and_what_was_read_are_of_the_second_half(
    tmp_path: Path, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = images.stored_files(tmp_path / "x.beton", images.cut(tmp_path, 4) * 32)
    batches, asked = [], []

    def used(parcels: object, *_: object) -> int:
        batches.append(next(parcels))  # type: ignore[call-overload]
        return 500

    def read_ahead(_: Beton, samples: Indices) -> None:
        asked.append(len(samples))

    monkeypatch.setattr(disk, "_used", used)
    monkeypatch.setattr(disk, "_bytes_read", iter([7_000, 1_007_000]).__next__)
    monkeypatch.setattr(disk.time, "perf_counter", iter([10.0, 15.0]).__next__)
    monkeypatch.setattr(stream, "fits_memory", lambda _: False)
    monkeypatch.setattr(stream, "read_ahead", read_ahead)
    assert disk.measured(file.path, window, 0.1, "test") == (100, 2)
    assert [batch["pixels.0"].shape for batch in batches] == [(64, 2, 224, 224, 3)] * 2
    assert not np.array_equal(batches[0]["samples"], batches[1]["samples"])
    assert bool(asked) is bool(window)


def test_it_goes_on_from_epoch_to_epoch(tmp_path: Path) -> None:
    file = images.stored_files(tmp_path / "x.beton", images.cut(tmp_path, 4) * 16)
    with closing(disk._parcels(file.path, None)) as parcels:
        orders = [next(parcels)["samples"].tolist() for _ in range(3)]  # of an epoch each
    assert [sorted(order) for order in orders] == [list(range(64))] * 3
    assert orders[0] != orders[1] != orders[2]


def test_it_ends_when_the_time_is_over(tmp_path: Path) -> None:
    file = images.stored_files(tmp_path / "x.beton", images.cut(tmp_path, 4) * 16)
    rate, kilobytes = disk.measured(file.path, None, 0.1, "test")
    assert rate > 0
    assert kilobytes >= 0


def test_a_file_of_the_same_images_again_and_again(tmp_path: Path) -> None:
    files = images.cut(tmp_path, 3)
    file = images.stored_files(tmp_path / "x.beton", files * 2)
    stored = [file.data[start : start + size].tobytes() for start, size in zip(file.starts, file.sizes, strict=True)]
    assert stored == [each.read_bytes() for each in files] * 2


def test_a_file_that_memory_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["disk", "--gigabytes", "0.001", "--folder", str(tmp_path)])
    with pytest.raises(UserError, match=r"--gigabytes 0.001: more than half of the memory"):
        disk.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gigabytes", "nan"], "'nan' is no number above 0"),
        (["--seconds", "x"], "'x' is no number above 0"),
        (["--windows", "128", "63"], "at least a batch, 64"),
        (["--folder", "nowhere"], "'nowhere' is no folder that can be written to"),
        (["--folder", __file__], "is no folder that can be written to"),
        (["--folder", ""], "'' is no folder that can be written to"),
    ],
)
def test_arguments_that_are_refused(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["disk", *given])
    with pytest.raises(SystemExit):
        disk.main()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_its_file_goes_when_it_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import sys, time; from unittest import mock; from benchmarks import disk\n"
        "stored = lambda folder, _: ((folder / 'train.beton').touch(), print('written', flush=True), time.sleep(60))\n"
        "with mock.patch.object(disk, '_stored', stored):\n"
        "    sys.argv = ['disk', '--folder', sys.argv[1]]\n"
        "    disk.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "written\n"
        assert list(tmp_path.rglob("train.beton"))
        running.send_signal(number)
        assert running.wait(60) == 128 + number
    assert not list(tmp_path.iterdir())
