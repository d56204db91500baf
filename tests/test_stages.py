"""The five stages as programs, one after the other, on the embedded digits; and what they say of bad parameters."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = ("fetch", "convert", "pretrain", "embed", "linear_eval")


def stage(name: str, folder: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": str(folder), "DVC_EXP_NAME": "tested"}
    command = [*(launcher or (sys.executable,)), str(ROOT / "stages" / f"{name}.py")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def change(folder: Path, **values: object) -> None:
    """Set values (section__key) in the params.yaml of `folder`."""
    yaml = YAML()
    content = yaml.load((ROOT / "params.yaml").read_text())
    for path, value in values.items():
        *sections, key = path.split("__")
        section = content
        for name in sections:
            section = section[name]
        section[key] = value
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(content, file)


TINY = {
    "pretrain__epochs": 2, "pretrain__encoder__width": 0.0625, "pretrain__views__size": 8,
    "pretrain__validation__every_epochs": 1, "embed__map_points": 60, "embed__map_perplexity": 5.0,
    "linear_eval__augmented__epochs": 1, "linear_eval__cached__l2": [0.01, 0.1],
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    change(folder, **TINY)
    for name in STAGES:
        result = stage(name, folder)
        assert result.returncode == 0, result.stderr
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def listed(key: str) -> list[str]:
    """What dvc.yaml says that the stages write: under `outs`, `metrics` or `plots`."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].values()
    entries = [entry for stage in stages for entry in stage.get(key, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_everything_that_dvc_expects_is_there_and_nothing_else(done: Path) -> None:
    expected = [*listed("outs"), *listed("metrics"), *listed("plots")]
    assert all((done / path).exists() for path in expected)
    written = {str(path.relative_to(done)) for path in done.rglob("*") if path.is_file()}
    known = {path for path in written if any(path == out or path.startswith(f"{out}/") for out in expected)}
    assert {path.split("/")[0] for path in written - known} == {"params.yaml", "runs"}


def test_results_are_small_enough_for_git_and_readable(done: Path) -> None:
    reports = [path for path in (done / "reports").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in reports) < 1_000_000
    for path in reports:
        match path.suffix:
            case ".json":
                json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN and the like
            case ".csv":
                assert len(rows(path)) >= 2
            case ".png":
                with Image.open(path) as picture:
                    assert min(picture.size) > 50
            case suffix:
                pytest.fail(f"{path} is a {suffix}")


def test_the_metrics_have_the_baselines_beside_the_probe(done: Path) -> None:
    metrics = json.loads((done / "reports/linear_eval/metrics.json").read_text())
    for name in ("pretrained", "untrained", "raw_pixels", "augmented"):
        assert 0 <= metrics[name]["top1"] <= metrics[name]["top5"] <= 100
    assert metrics["gain_over_raw_pixels"] == pytest.approx(
        metrics["pretrained"]["top1"] - metrics["raw_pixels"]["top1"], abs=1e-3
    )
    # even so short a training leaves features that tell most digits apart; raw pixels tell nearly all
    assert metrics["pretrained"]["top1"] > 50
    assert metrics["raw_pixels"]["top1"] > 90
    confusion = rows(done / "reports/linear_eval/predictions.csv")
    assert len(confusion) == 360
    right = sum(row["actual"] == row["predicted"] for row in confusion)
    assert 100 * right / 360 == pytest.approx(metrics["pretrained"]["top1"], abs=1e-3)


def test_event_files_stand_under_the_experiments_name(done: Path) -> None:
    folders = {path.parent.relative_to(done).as_posix() for path in (done / "runs").rglob("events.out*")}
    assert folders == {f"runs/tested/{name}" for name in ("pretrain", "embed", "linear_eval")}


def test_torchrun_with_two_gloo_processes_trains_as_one_process_does(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "data", tmp_path / "data")
    shutil.copy(done / "params.yaml", tmp_path)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    result = stage("pretrain", tmp_path, *launcher)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("pretrain: loss") == 1  # one process reports
    alone, together = (
        [float(row["loss"]) for row in rows(folder / "reports/pretrain/loss.csv")] for folder in (done, tmp_path)
    )
    assert together[0] == pytest.approx(alone[0], rel=1e-4)
    assert together[1] == pytest.approx(alone[1], rel=1e-2)  # rounding grows from step to step


BAD = {
    "pretrain__temperature": (0, "pretrain.temperature = 0"),
    "pretrain__batch_size": (4096, "pretrain.batch_size = 4096"),
    "pretrain__split": ("unlabelled", "data/beton/unlabelled.beton: this data set has no unlabelled split"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_parameters_end_in_one_line(key: str, done: Path, tmp_path: Path) -> None:
    value, message = BAD[key]
    change(tmp_path, **(TINY | {key: value}))
    (tmp_path / "data").symlink_to(done / "data")
    result = stage("pretrain", tmp_path)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if not line.startswith("pretrain:   0%")]
    assert len(lines) == 1
    assert lines[0].startswith("pretrain: error: ")
    assert message in lines[0]
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("name", ["convert", "pretrain", "linear_eval"])
def test_a_stage_without_its_inputs_says_which(name: str, tmp_path: Path) -> None:
    change(tmp_path)
    result = stage(name, tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"{name}: error: data/")
