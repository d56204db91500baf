"""The pieces of `make bench`, on tiny sizes: every figure is one, and a peer that is not installed is named."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from benchmarks import accuracy, augmentations, contest, conversion, epoch, images, loading, loss, optimizer, table
from benchmarks.accuracy import FAST, LIGHTLY, OURS, UNTRAINED, Level, Score
from benchmarks.contest import Measured, MissingError, Row
from benchmarks.images import Images

from simclr.core import processor
from simclr.core.errors import UserError
from simclr.distributed.session import Session

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Contestants have torch use all cores; the next test has the threads of a run again."""
    yield
    torch.set_num_threads(processor.threads())


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
    assert_sound(rows, 10)


def test_augmentations() -> None:
    assert_sound(augmentations.rows(CPU, count=2, size=16, least=0, repeats=1), 17)


def test_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_elsewhere", lambda *_: 1.0)  # each would be a new process
    assert_sound(loss.rows(CPU, samples=8, most=16, dimension=4, least=0, repeats=1), 6)


def test_optimizer() -> None:
    assert_sound(optimizer.rows(CPU, depth=10, width=0.125, least=0, repeats=1), 1)


def test_epoch(given: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "EPOCHS", 2)
    monkeypatch.setattr(epoch, "_elsewhere", lambda *_: 1.0)  # each would be a new process
    assert_sound(epoch.rows(given, tmp_path, CPU, repeats=1), 3)
    assert epoch.alone("digits", tmp_path / "alone") > 0


def test_conversion(given: Images, tmp_path: Path) -> None:
    assert_sound(conversion.rows(given.files, tmp_path, repeats=1), 3)


def test_simclr_is_imported_before_the_libraries_that_it_holds() -> None:
    """Else a row "held to AVX2" would not be, and MKL would have threads that no run has."""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", "import benchmarks, sys; assert 'simclr' in sys.modules; import torch\n"
         "from simclr.core import processor; processor.hold()"], env=os.environ | {"SIMCLR_CPU": "held"}, check=True,
    )  # fmt: skip


def test_loading_leaves_ours_the_threads_of_a_run(given: Images, tmp_path: Path) -> None:
    views = loading.views_of(contest.recipe("cifar10"))
    stored = images.stored_arrays(tmp_path / "arrays.beton", given.small)
    task = loading._Task(views, stored, given.small, 4, CPU)
    torch.set_num_threads(2)
    with closing(loading._ours(task)()) as stream:
        next(stream)
        assert torch.get_num_threads() == processor.threads()


def test_dense_form_is_the_same_loss() -> None:
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss.dense(z), loss.ours(z))


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


# --- what few epochs teach


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of photographs, five to train and two to validate on, in a folder that has no test/."""
    folder = tmp_path_factory.mktemp("classes")
    for split, count in (("train", 5), ("val", 2)):
        for number, name in enumerate("abc"):
            (folder / split / name).mkdir(parents=True)
            images.cut(folder / split / name, count, seed=number)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of others' libraries, in their workers
def test_accuracy(classes: Path, tmp_path: Path) -> None:
    given = accuracy.small_images(classes, count=12, tested=6, size=16, folder=tmp_path)
    tiny = ("models.resnet.width=0.125", "pretrain.views.resolution=16", "pretrain.batch_size=4")
    entrants = accuracy.contestants((*tiny, "pretrain.views.small.resolution=8"))
    found = list(accuracy.levels(given, entrants, epochs=(1, 2), seeds=2, session=Session(0, 1, CPU)))
    names = [(level.contestant, level.epochs) for level in found]
    assert names == [(UNTRAINED, 0)] + [(name, epochs) for epochs in (1, 2) for name in (OURS, FAST, LIGHTLY)]
    for level in found:
        if level.contestant == LIGHTLY and level.skipped:
            assert "lightly cannot be imported" in level.skipped
            continue
        assert len(level.scores) == 2
        assert all(0 <= figure <= 100 for score in level.scores for figure in (score.knn, score.linear))
        assert all(score.seconds > 0 for score in level.scores)
    text = accuracy.page(found, "# machine", "task")
    assert all(name in text for name in (UNTRAINED, OURS, FAST, LIGHTLY))
    assert text.count("lightly cannot be imported") in (0, 2)  # once for each number of epochs
    accuracy.draw(tmp_path / "curves.png", found)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_accuracy_is_of_the_first_images_of_every_class(classes: Path, tmp_path: Path) -> None:
    given = accuracy.small_images(classes, count=7, tested=3, size=8, folder=tmp_path)
    assert given.description.classes == ["a", "b", "c"]
    assert given.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert given.test.labels.tolist() == [0, 1, 2]
    first = sorted((classes / "train" / "b").iterdir())[0]
    stored = given.train.data[given.train.starts[2] :][: 8 * 8 * 3].reshape(8, 8, 3)
    assert (stored == accuracy._square(first, 8)).all()
    values = given.train.data[given.train.starts[0] :][: 8 * 8 * 3].reshape(-1, 3)
    assert 0 < given.description.mean[0] < 1
    assert values.max() > 1  # the description is of values from 0 to 1, the file's are from 0 to 255


@pytest.mark.parametrize(
    ("count", "removed", "message"),
    [
        (18, "", "train/a: 6 images are needed, 5 (.jpg, .jpeg or .png) are there"),
        (9, "val/b", "train has the classes a, b, c, test a, c"),
        (9, "train", "train: no class folder is in it; --images takes a folder with train/<class>/*"),
    ],
)
def test_accuracy_says_in_one_line_what_images_it_lacks(
    classes: Path, tmp_path: Path, count: int, removed: str, message: str
) -> None:
    shutil.copytree(classes, tmp_path / "images")
    if removed:
        shutil.rmtree(tmp_path / "images" / removed)
    with pytest.raises(UserError) as caught:
        accuracy.small_images(tmp_path / "images", count, 3, 8, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_difference_of_accuracies_is_that_of_each_seed() -> None:
    ours = Level(OURS, 6, (Score(30.0, 41.0, 10.0), Score(40.0, 43.0, 12.0)))
    theirs = Level(LIGHTLY, 6, (Score(28.0, 41.0, 15.0), Score(38.0, 44.0, 15.0)))
    text = accuracy.page([ours, theirs], "# machine", "task")
    assert "| 6 | ours | 35.0 ± 7.1 | 42.0 ± 1.4 | 11 ± 1 |" in text
    assert "| 6 | ours - lightly's parts | +2.0 ± 0.0 | -0.5 ± 0.7 | -4 ± 1 |" in text
    alone = accuracy.page([ours, Level(LIGHTLY, 6, (), "not here")], "# machine", "task")
    assert "| 6 | lightly's parts: not here | - | - | - |" in alone
    assert "ours - " not in alone


def test_accuracy_without_images_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.accuracy"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bench-accuracy: error: --images is missing (for make: IMAGES=folder); it takes a ")
    assert done.stderr.count("\n") == 1
