"""The pieces of `make bench`, on tiny sizes: every figure is one, and a peer that is not installed is named."""

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from benchmarks import augmentations, contest, conversion, epoch, images, loading, loss, optimizer, table
from benchmarks.contest import Measured, MissingError, Row
from benchmarks.images import Images

from simclr.distributed import Session
from simclr.failure import UserError
from simclr.nt_xent import nt_xent

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Images:
    files = images.cut(tmp_path_factory.mktemp("jpeg"), count=6)
    return Images(files, images.shrunk(files, count=8))


def assert_sound(rows: Iterable[Row], least: int) -> None:
    """All `rows`, at least so many, have figures and ratios, or say why there is none."""
    found = list(rows)
    assert len(found) >= least
    for row in found:
        assert all(math.isfinite(figure) and figure >= 0 for figure in row.ours.figures), row
        if row.theirs is not None:
            assert row.ratio is not None
            assert math.isfinite(row.ratio), row
            assert row.ratio > 0, row
        elif row.peer:
            assert "cannot be imported" in row.skipped, row
        assert row.what in table.line(row)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of others' libraries, in their workers
def test_loading(given: Images, tmp_path: Path) -> None:
    """Without upstream's loader, which compiles for a minute."""
    rows = loading.rows(given, tmp_path, CPU, batch_sizes=(4, 2), least=0, repeats=1, without="FFCV, two decodes")
    assert_sound(rows, 9)


def test_augmentations() -> None:
    assert_sound(augmentations.rows(CPU, count=2, size=16, least=0, repeats=1), 17)


def test_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_elsewhere", lambda *_: 1.0)  # each would be a new process
    assert_sound(loss.rows(CPU, samples=8, most=16, dimension=4, least=0, repeats=1), 6)


def test_optimizer() -> None:
    assert_sound(optimizer.rows(CPU, name="resnet10", width=0.125, least=0, repeats=1), 1)


def test_epoch(given: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "EPOCHS", 2)
    monkeypatch.setattr(epoch, "_elsewhere", lambda *_: 1.0)  # each would be a new process
    assert_sound(epoch.rows(given, tmp_path, CPU, repeats=1), 3)
    assert epoch.alone("digits", tmp_path / "alone") > 0


def test_conversion(given: Images, tmp_path: Path) -> None:
    assert_sound(conversion.rows(given.files, tmp_path, repeats=1), 3)


def test_dense_form_is_the_same_loss() -> None:
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    ours = nt_xent(z, loss.TEMPERATURE, Session(rank=0, world=1, device=CPU))
    torch.testing.assert_close(loss.dense(z), ours)


def test_memory_is_what_the_loss_takes() -> None:
    matrix = (2 * 2048) ** 2 * 4 / 2**20  # of the dense form, in MiB: it holds three or four at once
    assert matrix < loss._elsewhere("dense form", 2048, 4, CPU) < 6 * matrix


@pytest.mark.parametrize(
    ("more_is_better", "ratio", "reached"), [(True, 2.0, True), (False, 0.5, False)], ids=["rate", "time"]
)
def test_ratio_is_above_one_where_ours_is_better(more_is_better: bool, ratio: float, reached: bool) -> None:
    row = Row("it", "unit", Measured((4.0, 1.0, 9.0)), "peer", Measured((2.0,)), more_is_better, target=1.5)
    assert row.ratio == ratio
    assert row.reached == reached


def test_alone_a_target_is_of_the_figure() -> None:
    assert Row("it", "s", Measured((2.0,)), target=3.0).reached
    assert not Row("it", "s", Measured((4.0,)), target=3.0).reached


def test_contestants_take_turns() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        return len(turns)

    found = contest.interleaved({name: lambda name=name: run(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert "".join(turns) == "abbaab"
    assert found["b"].figures == (2, 3, 6)
    assert found["b"].median == 3


def test_a_missing_peer_is_skipped_with_its_reason() -> None:
    def missing() -> contest.Run:
        raise MissingError("not here")

    (row,) = contest.compare("it", "s", lambda: 1.0, {"peer": missing}, 1, targets={"peer": 2.0})
    assert (row.theirs, row.ratio, row.reached, row.skipped) == (None, None, None, "not here")
    assert "not measured" in table.line(row)
    page = table.page([row], ["- a note"], CPU, load=0.5, seconds=60)
    assert "- peer: not here" in page
    with pytest.raises(MissingError, match="no_such_module cannot be imported"):
        contest.peer("no_such_module")


def test_a_named_folder(given: Images, tmp_path: Path) -> None:
    folder = given.files[0].parent
    (folder / "notes.txt").write_text("no picture")
    assert images.found(folder, 4) == sorted(given.files)[:4]
    with pytest.raises(UserError, match="no JPEG file"):
        images.found(tmp_path, 4)
