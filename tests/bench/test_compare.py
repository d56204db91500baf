"""What `make compare` runs, reads and writes, with a program in DVC's place."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.compare import __main__ as command
from benchmarks.compare import experiment, page, picture, subset, sweep
from benchmarks.compare.experiment import Experiment, FailedError, Outcome
from benchmarks.compare.row import Row, measured
from benchmarks.compare.speed import Speed
from benchmarks.compare.sweep import Sweep

from simclr import presets
from simclr.core import fingerprint
from simclr.core.errors import Stopped, UserError
from simclr.core.tables import write_json
from simclr.tracking.tensorboard import Board
from tests.helpers.programs import ROOT

SWEEP = Sweep("losses", (), {"nt_xent": (), "decoupled": ("pretrain.loss=decoupled",)})


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """To parse all code takes seconds."""
    monkeypatch.setattr(fingerprint, "of_program", lambda file, options: [file.name, *options])
    experiment._code.cache_clear()
    yield
    experiment._code.cache_clear()


def scored(linear: float, untrained: float = 90.0, raw_pixels: float = 80.0, speed: Speed | None = None) -> Outcome:
    return Outcome(linear, 70.0, 60.0, untrained, raw_pixels, speed)


def row(*linear: float, name: str = "row", untrained: tuple[float, ...] = (90.0, 90.0, 90.0)) -> Row:
    return Row(name, {seed: scored(*both) for seed, both in enumerate(zip(linear, untrained, strict=False))})


# --- the table


def test_a_line_has_means_deviations_and_differences_for_each_seed() -> None:
    first = Row("a", {0: scored(94, 90), 1: scored(96, 92)})
    second = Row("b", {0: scored(95, 90, speed=Speed(2.0, 1.0)), 1: scored(99, 92, speed=Speed(4.0, 1.0))})
    lines = page.page([first, second], Sweep("s", (), {"a": (), "b": ("x=1", "y=2")}), "# heading").splitlines()
    assert lines[0] == "# heading"
    assert "|  | seeds | linear | kNN | augmented | - a | - untrained | - raw pixels | s an epoch | GiB |  |" in lines
    assert "| untrained encoder | 2 | 91.0 ± 1.4 |  |  |  |  |  |  |  |  |" in lines
    assert "| raw pixels | 2 | 80.0 ± 0.0 |  |  |  |  |  |  |  |  |" in lines
    both = "| 70.0 ± 0.0 | 60.0 ± 0.0 |"
    assert f"| a | 2 | 95.0 ± 1.4 {both}  | +4.0 ± 0.0 | +15.0 ± 1.4 | - | - |  |" in lines
    assert (
        f"| b | 2 | 97.0 ± 2.8 {both} +2.0 ± 1.4 | +6.0 ± 1.4 | +17.0 ± 2.8 | 3.00 ± 1.41 | 1.00 ± 0.00 |  |" in lines
    )
    assert lines[-2:] == ["- a: as it is", "- b: `x=1 y=2`"]


@pytest.mark.parametrize(
    ("linear", "untrained", "above", "remark"),
    [
        ((93.0, 92.0, 91.0), (90.0, 90.0, 90.0), False, "**not above the baselines**"),  # 2 ± 1
        ((93.1, 92.1, 91.1), (90.0, 90.0, 90.0), True, ""),
        ((91.0, 96.0, 92.0), (90.0, 95.0, 91.0), True, ""),  # always 1
        ((79.0, 79.5, 79.2), (70.0, 70.0, 70.0), False, "**not above the baselines**"),  # below raw pixels
        ((95.0,), (90.0,), True, "one seed"),
        ((90.0,), (90.0,), False, "one seed, **not above the baselines**"),
        ((79.0,), (70.0,), False, "one seed, **not above the baselines**"),
    ],
)
def test_above_the_baselines_is_by_two_deviations_of_the_gain(
    linear: tuple[float, ...], untrained: tuple[float, ...], above: bool, remark: str
) -> None:
    line = page.page([row(*linear, untrained=untrained)], SWEEP, "").splitlines()[6]
    assert row(*linear, untrained=untrained).above_baselines is above
    assert line.endswith(f"| {remark} |")


def test_the_difference_is_over_the_seeds_that_both_have() -> None:
    assert row(94, 95, 97).gains_over(row(93, 93)) == [1, 2]


def test_the_picture_has_a_line_for_each_row(tmp_path: Path) -> None:
    picture.draw(tmp_path / "rows.png", [row(94, 95), Row("failed", {}, "why"), row(91)])
    assert (tmp_path / "rows.png").stat().st_size > 1000


# --- one after the other


def planned(*names: str, seeds: int = 2) -> list[Experiment]:
    return [Experiment("s", name, seed, (), f"{name}{seed}") for seed in range(seeds) for name in names]


def test_a_row_that_fails_costs_itself_alone() -> None:
    run, written = [], []

    def outcome(planned: Experiment) -> Outcome:
        run.append(f"{planned.row}{planned.seed}")
        if planned.row == "b":
            raise FailedError("too | wild")
        return scored(95)

    rows = measured(planned("a", "b", "c"), outcome, lambda rows: written.append([len(row.outcomes) for row in rows]))
    assert run == ["a0", "b0", "c0", "a1", "c1"]
    assert written == [[1, 0, 0], [1, 0, 0], [1, 0, 1], [2, 0, 1], [2, 0, 2]]
    text = page.page(rows, Sweep("s", (), {"a": (), "b": (), "c": ()}), "")
    assert "| b | 0 | - | - | - | - | - | - | - | - | **failed**: too \\| wild |" in text
    assert "| c | 2 | 95.0 ± 0.0 |" in text


@pytest.mark.parametrize("fails", [True, False])
def test_the_command_tells_of_a_failure_at_the_end(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcome(planned: Experiment) -> Outcome:
        if fails and planned.row == "decoupled":
            raise FailedError("no luck")
        return scored(95)

    monkeypatch.setattr(experiment, "outcome", outcome)
    monkeypatch.setattr(command, "_RESULTS", tmp_path)
    path = written(tmp_path, "rows: {nt_xent: [], decoupled: [pretrain.loss=decoupled]}")
    monkeypatch.setattr(sys, "argv", ["compare", path, "--seeds", "1", "-S", "pretrain.epochs=2"])
    if fails:
        with pytest.raises(UserError, match="failed: decoupled; the table says why"):
            command.main()
    else:
        command.main()
    text = (tmp_path / "compare-mine-digits.md").read_text()
    assert text == capsys.readouterr().out[:-1]
    assert text.startswith(
        f"# mine, digits\n\n    python -m benchmarks.compare {path} --seeds 1 -S pretrain.epochs=2\n"
    )
    assert "Revision " in text
    assert (tmp_path / "compare-mine-digits.png").exists()


# --- sweeps


def written(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "mine.yaml: not valid YAML: "),
        ("rows: {}", "mine.yaml: needs rows, each a name with a list of overrides"),
        ("row: {a: []}", "mine.yaml: needs rows"),
        ("rows: {a: []}\nseeds: 3", "mine.yaml: seeds means nothing here; there are common and rows"),
        ("rows: {a b: []}", "mine.yaml: a b cannot name a row"),
        ("rows: {a..b: []}", "mine.yaml: a..b cannot name a row"),
        ("rows: {a: pretrain.epochs=2}", "mine.yaml: a takes a list of overrides"),
        ("common: [3]\nrows: {a: []}", "mine.yaml: common takes a list of overrides"),
        ("rows: {a: [pretrain.los=nt_xent]}", "mine: a: Could not override 'pretrain.los'"),
        ("rows: {a: [pretrain.loss=no]}", 'mine: a: pretrain.loss = "no" is not allowed; it takes one of decoupled'),
        ("rows: {a: [], b: ['pretrain.epochs=range(1,3)']}", "mine: b: pretrain.epochs=range(1,3) has several values"),
        (
            "rows: {a: [pretrain.seed=5]}",
            "mine.yaml: a: pretrain.seed=5 is not allowed: the runs of a row have the seeds",
        ),
        ("common: [linear_eval.seed=5]\nrows: {a: []}", "mine.yaml: common: linear_eval.seed=5 is not allowed"),
        ("rows: {1: []}", "mine.yaml: 1 cannot name a row: it takes a text of up to 60 letters, digits and _"),
        ("rows: {~: []}", "mine.yaml: None cannot name a row"),
        (f"rows: {{{'a' * 61}: []}}", f"mine.yaml: {'a' * 61} cannot name a row"),
        ("rows: {a: ['pretrain.epochs=${nope}']}", "mine: a: Interpolation key 'nope' not found"),
        (f"rows: {'[' * 3000}", "mine.yaml: not valid YAML: "),
        ("rows: {a: [pretrain.epochs]}", "mine: a: Error parsing override 'pretrain.epochs'"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        experiment.plan(sweep.read(written(tmp_path, text)), seeds=1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_sweep_is_that_of_experiments(tmp_path: Path) -> None:
    path = tmp_path / "my sweep.yaml"
    path.write_text("rows: {a: []}")
    with pytest.raises(UserError, match=r"my sweep\.yaml: my sweep cannot name a sweep: it takes a text of up to 60"):
        sweep.read(str(path))


def test_an_unknown_sweep_is_told_which_there_are() -> None:
    names = "fast, losses, methods, norms, penalties, strengths"
    with pytest.raises(UserError, match=rf"nope: no sweep .*; there are {names}, or a YAML file"):
        sweep.read("nope")


@pytest.mark.parametrize("name", [path.stem for path in sweep.FOLDER.glob("*.yaml")])
def test_the_sweeps_of_the_repository_are_allowed(name: str) -> None:
    compared = sweep.read(name)
    assert [planned.row for planned in experiment.plan(compared, seeds=1)] == list(compared.rows)


def test_a_preset_sets_every_value_whatever_there_was() -> None:
    assert sweep.values(sweep.of_preset("cifar10"), "cifar10") == presets.compose("cifar10")


def test_rows_with_the_same_values_share_their_identity() -> None:
    rows = {
        "a": (),
        "b": ("pretrain.epochs=80",),
        "c": ("losses.decoupled.temperature=0.5",),
        "d": ("pretrain.epochs=9",),
    }
    first, *others = experiment.plan(Sweep("s", ("convert.seed=0",), rows), seeds=2)
    assert first.overrides == ("convert.seed=0", "pretrain.seed=0", "linear_eval.seed=0")
    assert [planned.name.rpartition("-")[0] for planned in [first, *others]] == [
        f"s-{name}-{seed}" for seed in range(2) for name in "abcd"
    ]
    # the parameters of a loss that is not used change nothing, but another seed and another epoch do
    assert [planned.identity == first.identity for planned in others] == [True, True, *[False] * 5]


def test_images_count_by_their_sizes_and_times(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"1")
    compared = Sweep("s", ("fetch.source=folder", sweep.override("fetch.folder", str(tmp_path))), {"a": ()})
    identities = [experiment.plan(compared, 1)[0].identity]
    identities.append(experiment.plan(compared, 1)[0].identity)
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"12")
    identities.append(experiment.plan(compared, 1)[0].identity)
    assert [identity == identities[0] for identity in identities] == [True, True, False]


def test_what_a_list_and_a_file_of_weights_hold_counts_too(tmp_path: Path) -> None:
    listed, weights = tmp_path / "list.b2sum", tmp_path / "weights.pth"
    common = (
        "fetch.source=folder", sweep.override("fetch.folder", str(listed)),
        "pretrain.method=pretrained", sweep.override("methods.pretrained.file", str(weights)),
    )  # fmt: skip
    identities = set()
    for contents in (("1", "1"), ("2", "1"), ("2", "2")):
        for path, content in zip((listed, weights), contents, strict=True):
            path.write_text(f"# 1 files of /pictures\n{content * 32}  1.png\n")
        identities |= {planned.identity for planned in experiment.plan(Sweep("s", common, {"a": (), "b": ()}), 1)}
    assert len(identities) == 3


def test_a_subset_has_the_first_images_of_every_class(tmp_path: Path) -> None:
    for path in ("train/a/1.png", "train/a/2.png", "train/a/3.png", "train/b/4.png", "train/b/5.png", "val/a/6.png"):
        (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / path).write_text(path)
    for _ in range(2):
        subset.linked(tmp_path / "all", 2, tmp_path / "some")
    files = {path.relative_to(tmp_path / "some").as_posix(): path for path in (tmp_path / "some").rglob("*.png")}
    assert sorted(files) == ["train/a/1.png", "train/a/2.png", "train/b/4.png", "train/b/5.png", "val/a/6.png"]
    assert all(path.read_text() == name for name, path in files.items())
    with pytest.raises(UserError, match=r"train/b: 3 images are needed, 2 \(.jpg, .jpeg or .png\) are there"):
        subset.linked(tmp_path / "all", 3, tmp_path / "some")


# --- runs, with another program in the place of DVC

LOCK = """
stages:
  pretrain:
    params: {params.yaml: {pretrain: {split: train, batch_size: 256}}}
    outs:
    - {path: models/encoder.safetensors, md5: abc}
"""
RECORD = """
import subprocess, sys
name = sys.argv[sys.argv.index("--name") + 1]
print(*sys.argv[1:])
subprocess.run(["git", "update-ref", f"refs/exps/ab/cdef/{name}", "HEAD"], check=True)
"""
FAIL = """
import sys
print("pretrain: error: the gradient is not finite\\r\\nERROR: failed to reproduce 'pretrain'")
sys.exit(255)
"""
STAGE = """
import os, signal, subprocess, sys
wait = "import time; print('stage begins', flush=True); time.sleep(60)"
stage = subprocess.Popen([sys.executable, "-c", wait], env=os.environ | {"DVC_STAGE": "pretrain"})
os.kill(os.getppid(), signal.SIGINT)
print("the stage ended with", stage.wait(), flush=True)
sys.exit(255)
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose commit holds results: 1,295 images to train on, so 1,280 samples an epoch."""
    probes = {"pretrained": 95.0, "augmented": 94.0, "untrained": 90.0, "raw_pixels": 80.0}
    monkeypatch.chdir(tmp_path)
    write_json(Path("reports/convert/metrics.json"), {"train": {"images": 1295}})
    write_json(Path("reports/embed/metrics.json"), {"knn_top1": 93.0})
    write_json(Path("reports/linear_eval/metrics.json"), {name: {"top1": value} for name, value in probes.items()})
    Path("dvc.lock").write_text(LOCK)
    Path("dvc").mkdir()  # `python -m dvc` finds it first
    Path("dvc/__init__.py").touch()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "c"]):
        subprocess.run(["git", *words], check=True)
    return tmp_path


def one() -> Experiment:
    return experiment.plan(SWEEP, seeds=1)[1]


def dvc(program: str) -> None:
    Path("dvc", "__main__.py").write_text(program)


def test_what_is_recorded_is_read_and_not_run_again(repository: Path) -> None:
    dvc(RECORD)
    expected = Outcome(95.0, 93.0, 94.0, 90.0, 80.0, None)
    assert experiment.outcome(one()) == expected
    said = Path("runs", one().name, "dvc.log").read_text()
    overrides = "-S pretrain.loss=decoupled -S pretrain.seed=0 -S linear_eval.seed=0"
    assert said == f"exp run --temp --name {one().name} {overrides}\n"
    dvc(FAIL)
    assert experiment.outcome(one()) == expected
    named = experiment.plan(Sweep("another", (), {"name": ("pretrain.loss=decoupled",)}), 1)[0]
    assert experiment.outcome(named) == expected
    with pytest.raises(FailedError):
        experiment.outcome(experiment.plan(SWEEP, seeds=1)[0])


def test_images_without_labels_cannot_be_compared(repository: Path) -> None:
    write_json(Path("reports/linear_eval/metrics.json"), {})
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qam", "all"], check=True)
    with pytest.raises(UserError, match="images without labels cannot be compared"):
        experiment._read("HEAD")


def test_files_that_are_missing_are_named_before_any_run(repository: Path) -> None:
    changes = ("fetch.source=folder", "fetch.folder=/nowhere")
    with pytest.raises(UserError, match=r"^s: a: fetch\.folder: /nowhere does not exist"):
        experiment.plan(Sweep("s", changes, {"a": ()}), 1)
    Path("pictures").mkdir()
    Path("pictures/1.png").touch()
    with pytest.raises(UserError, match=r"^s: a: fetch\.folder: pictures has no train/: images without labels cannot"):
        experiment.plan(Sweep("s", ("fetch.source=folder", "fetch.folder=pictures"), {"a": ()}), 1)


def test_a_run_on_train_and_val_together_is_read(repository: Path) -> None:
    Path("dvc.lock").write_text(LOCK.replace("split: train", "split: all"))
    write_json(Path("reports/convert/metrics.json"), {"train": {"images": 1295}, "val": {"images": 10}})
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qam", "all"], check=True)
    assert experiment._read("HEAD").linear == 95.0


def test_the_speed_is_of_the_run_that_made_the_results(repository: Path) -> None:
    dvc(RECORD)
    for name, md5, ended, rates in (
        ("a", "abc", "2026-01", [9]),
        ("b", "abc", "2026-02", [100, 640, 640]),
        ("c", "x", "3", [1]),
    ):
        with Board(Path("runs", name, "pretrain")) as board:
            for step, rate in enumerate(rates):
                board.scalars({"speed/samples_per_second": rate, "speed/peak_memory_gib": 1 + step}, step)
        machine = {"outs": {"models/encoder.safetensors": md5}, "ended": ended}
        write_json(Path("runs", name, "pretrain", "machine.json"), machine)
    Path("runs/c/pretrain/machine.json").write_text("{")
    assert experiment.outcome(one()).speed == Speed(epoch_seconds=2.0, gibibytes=3.0)


def test_a_failure_is_told_by_the_stage_s_own_words(repository: Path) -> None:
    dvc(FAIL)
    with pytest.raises(FailedError) as caught:
        experiment.outcome(one())
    assert str(caught.value) == f"pretrain: error: the gradient is not finite (runs/{one().name}/dvc.log)"


def test_a_signal_stops_the_stage_and_lets_dvc_end_in_good_order(repository: Path) -> None:
    dvc(STAGE)
    with pytest.raises(Stopped) as caught:
        experiment.outcome(one())
    assert caught.value.number == signal.SIGINT
    assert "the same command goes on" in str(caught.value)
    assert Path("runs", one().name, "dvc.log").read_text().endswith(f"the stage ended with -{int(signal.SIGTERM)}\n")
    dvc(RECORD)
    assert experiment.outcome(one()).linear == 95.0


def test_what_changes_meanwhile_ends_it(repository: Path) -> None:
    dvc(RECORD)
    before = one()
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("epochs: 80", "epochs: 81"))
    with pytest.raises(UserError, match="code, parameters or images have changed meanwhile"):
        experiment.outcome(before)


def test_code_that_git_does_not_know_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", "losses"])
    Path("stages", "new.py").write_text("")
    with pytest.raises(
        UserError, match=r"Git does not know stages/new.py, so that no experiment would have it: git add"
    ):
        command.main()
