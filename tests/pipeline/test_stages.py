"""The stages as programs, one after the other, on the embedded digits; and what they say of bad parameters."""

import csv
import hashlib
import io
import json
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from simclr.core import arrays
from simclr.core.errors import Stopped, UserError
from simclr.core.interval import wilson
from simclr.core.signals import Interruption
from simclr.distributed.session import Session
from tests.helpers.programs import ROOT, STAGES, TINY, change, expected, made, ready, run, stage


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
    others = {path for path in written - known if path.split("/")[0] not in ("runs", "checkpoints")}
    assert others == {"params.yaml", *(f"reports/{name}/run.json" for name in STAGES)}


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
            case ".md":
                assert path.read_text().startswith("---\nlicense: ")
            case "" if path.name == ".gitkeep":
                assert not path.read_bytes()
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
    right = sum(row["actual"] == row["augmented"] for row in confusion)
    assert 100 * right / 360 == pytest.approx(metrics["augmented"]["top1"], abs=1e-3)


def test_every_accuracy_on_test_has_its_interval(done: Path) -> None:
    def read(stage: str) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((done / "reports" / stage / "metrics.json").read_text())
        return metrics

    linear_eval, [finetune], embed = read("linear_eval"), read("finetune").values(), read("embed")
    judged = [linear_eval[name] for name in ("pretrained", "augmented", "untrained", "raw_pixels")]
    judged += [finetune[name] for name in ("finetuned", "from_scratch")]
    judged += [{name.removeprefix("knn_"): value for name, value in embed.items()}]
    for accuracies in judged:
        low, high = wilson(round(3.6 * accuracies["top1"]), 360)
        found = (accuracies["top1_low"], accuracies["top1_high"])
        assert found == pytest.approx((100 * low, 100 * high), abs=1e-3)


def test_a_picture_of_each_evaluation_is_drawn(done: Path) -> None:
    names = {path.stem for path in (done / "reports/draw/evaluations").glob("*.png")}
    assert names == {*json.loads((done / "reports/evaluate/metrics.json").read_text()), "finetune"}


def test_without_fractions_nothing_is_fine_tuned(done: Path, tmp_path: Path) -> None:
    ready("finetune", done, tmp_path)
    change(tmp_path, **TINY | {"finetune__fractions": []})
    assert run("finetune", tmp_path).code == 0
    assert json.loads((tmp_path / "reports/finetune/metrics.json").read_text()) == {}
    assert json.loads((tmp_path / "data/label_subsets.json").read_text()) == {}


def test_of_no_fine_tuning_nothing_is_drawn(done: Path, tmp_path: Path) -> None:
    ready("draw", done, tmp_path)
    reports = tmp_path / "reports/finetune"
    reports.unlink()
    reports.mkdir()
    (reports / "metrics.json").write_text("{}")
    assert run("draw", tmp_path).code == 0
    assert not (tmp_path / "reports/draw/evaluations/finetune.png").exists()


@pytest.mark.parametrize("content", ['{"10_percent": {}}', '{"10_percent": {"finetuned": {"top1": NaN}}}', "[1]", "{"])
def test_no_fine_tuning_is_drawn_from_damaged_metrics(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports/finetune").mkdir(parents=True)
    Path("reports/finetune/metrics.json").write_text(content)
    columns = runpy.run_path(str(ROOT / "stages" / "draw.py"))["finetune_columns"]
    with pytest.raises(UserError, match=r"metrics\.json: damaged; the finetune stage writes it"):
        columns()


def test_the_labels_that_were_used_are_listed(done: Path) -> None:
    metrics = json.loads((done / "reports/finetune/metrics.json").read_text())
    subsets = json.loads((done / "data/label_subsets.json").read_text())
    assert subsets.keys() == metrics.keys() == {"10_percent"}
    assert len(set(subsets["10_percent"])) == metrics["10_percent"]["labels"] == 129


def test_an_evaluation_that_is_not_listed_leaves_nothing(done: Path, tmp_path: Path) -> None:
    ready("evaluate", done, tmp_path)
    for listed_names in (["health"], []):
        change(tmp_path, **TINY, evaluate__evaluations=listed_names)
        assert run("evaluate", tmp_path).code == 0
        assert list(json.loads((tmp_path / "reports/evaluate/metrics.json").read_text())) == listed_names
        tables = [path.stem for path in (tmp_path / "reports/evaluate/tables").glob("*.csv")]
        assert tables == listed_names


def test_event_files_stand_under_the_experiments_name(done: Path) -> None:
    folders = {path.parent.relative_to(done).as_posix() for path in (done / "runs").rglob("events.out*")}
    assert folders == {f"runs/tested/{name}" for name in ("pretrain", "embed", "linear_eval", "draw")}


def test_the_board_has_the_confusion_matrix(done: Path) -> None:
    events = EventAccumulator(str(done / "runs/tested/draw")).Reload()
    [shown] = events.Images("linear_eval/confusion")
    found, drawn = Image.open(io.BytesIO(shown.encoded_image_string)), Image.open(done / "reports/draw/confusion.png")
    assert np.array_equal(np.asarray(found), np.asarray(drawn.convert("RGB")))


def test_pictures_are_drawn_again_from_what_the_stages_wrote(done: Path, tmp_path: Path) -> None:
    ready("draw", done, tmp_path)
    assert run("draw", tmp_path).code == 0
    assert made(tmp_path) == expected("draw", done)


ARRAYS = {"views": "pretrain", "embedding": "embed", "scores": "linear_eval"}


@pytest.mark.parametrize("name", ARRAYS)
def test_nothing_is_drawn_from_arrays_that_are_missing_or_damaged(name: str, done: Path, tmp_path: Path) -> None:
    ready("draw", done, tmp_path)
    path, writes = f"data/{name}.safetensors", f"the {ARRAYS[name]} stage writes it"
    (tmp_path / path).unlink()
    assert re.fullmatch(rf"{path}: cannot be read \(.+\); {writes}", run("draw", tmp_path).error)
    (tmp_path / path).write_bytes((done / path).read_bytes()[:-1])
    assert run("draw", tmp_path).error == f"{path}: damaged; {writes}"
    assert made(tmp_path).keys() == {path}


def test_nothing_is_drawn_of_images_that_are_not_there(done: Path, tmp_path: Path) -> None:
    ready("draw", done, tmp_path)
    path = tmp_path / "data/embedding.safetensors"
    embedding = arrays.load(path, ["samples", "points", "queries", "nearest"], "embed")
    for name, index in (("samples", -1), ("queries", 360), ("nearest", 1 << 40)):
        changed = embedding[name].copy()
        changed.flat[0] = index
        path.unlink()
        arrays.save(path, {**embedding, name: changed})
        assert run("draw", tmp_path).error == (
            "data/embedding.safetensors: damaged, or of other images; the embed stage writes it"
        )


@pytest.mark.parametrize("stage", ["embed", "linear_eval", "finetune", "evaluate", "card"])
def test_without_an_encoder_no_stage_that_reads_it_begins(stage: str, done: Path, tmp_path: Path) -> None:
    ready(stage, done, tmp_path)
    (tmp_path / "models").unlink()
    missing = r"models/encoder\.safetensors: cannot be read \(No such file or directory\)"
    assert re.match(missing, run(stage, tmp_path).error)


def test_the_card_is_that_of_what_the_stages_wrote(done: Path, tmp_path: Path) -> None:
    ready("card", done, tmp_path)
    for _ in range(2):
        assert run("card", tmp_path).code == 0
        assert made(tmp_path) == expected("card", done)
    card = (tmp_path / "reports/card/model_card.md").read_text()
    metrics = json.loads((done / "reports/linear_eval/metrics.json").read_text())
    assert f"| Linear probe on the encoder | {metrics['pretrained']['top1']:.2f} |" in card
    assert [f"| Images of `{name}` | {count} |" in card for name, count in (("val", 142), ("test", 360))] == [True] * 2
    encoder = (done / "models/encoder.safetensors").read_bytes()
    assert hashlib.sha256(encoder).hexdigest() in card
    assert hashlib.md5(encoder).hexdigest() in card
    assert f"| `torch` | `{torch.__version__.partition('+')[0]}` |" in card


@pytest.mark.parametrize("name", ["pretrain", "embed", "linear_eval", "finetune", "evaluate"])
def test_no_card_is_written_from_reports_that_are_missing_or_damaged(name: str, done: Path, tmp_path: Path) -> None:
    ready("card", done, tmp_path)
    folder, path = tmp_path / "reports" / name, f"reports/{name}/metrics.json"
    folder.unlink()
    shutil.copytree(done / "reports" / name, folder)
    (tmp_path / path).write_text("[]")
    assert run("card", tmp_path).error == f"{path}: damaged; the {name} stage writes it"
    (tmp_path / path).unlink()
    assert re.fullmatch(rf"{path}: cannot be read \(.+\); the {name} stage writes it", run("card", tmp_path).error)
    assert not (tmp_path / "reports/card").exists()


def test_a_card_does_not_quote_the_record_of_another_run(done: Path, tmp_path: Path) -> None:
    ready("card", done, tmp_path)
    (tmp_path / "reports/pretrain").unlink()
    shutil.copytree(done / "reports/pretrain", tmp_path / "reports/pretrain")
    record = tmp_path / "reports/pretrain/run.json"
    record.write_text(record.read_text().replace('"models/encoder.safetensors": "', '"models/encoder.safetensors": "0'))
    refused = "card: error: reports/pretrain/metrics.json: of another encoder; run the pretrain stage\n"
    assert run("card", tmp_path) == (1, refused)
    record.write_text(record.read_text().replace('metrics.json": "', 'metrics.json": "0'))  # DVC brought them back
    assert run("card", tmp_path).code == 0
    card = (tmp_path / "reports/card/model_card.md").read_text()
    assert "How this run was made is not recorded." in card
    assert "`torch`" not in card


def test_an_online_probe_is_a_column_more_and_changes_nothing_else(done: Path, tmp_path: Path) -> None:
    ready("pretrain", done, tmp_path)
    change(tmp_path, **TINY, pretrain__online_probe__lr=0.1)
    assert run("pretrain", tmp_path).code == 0
    others = made(tmp_path)
    for name, content in expected("pretrain", done).items():
        if name.endswith(("encoder.safetensors", "views.safetensors", "loss.csv", "lr.csv")):
            assert others[name] == content, name
    found, known = (rows(folder / "reports/pretrain/knn.csv") for folder in (tmp_path, done))
    assert [list(row) for row in found] == [["epoch", "knn_top1", "probe_top1"]] * 2
    assert [{name: row[name] for name in ("epoch", "knn_top1")} for row in found] == known
    metrics = json.loads(others["reports/pretrain/metrics.json"])
    assert metrics.pop("val_probe_top1") == float(found[-1]["probe_top1"])
    assert metrics == json.loads((done / "reports/pretrain/metrics.json").read_text())


def test_accuracies_on_val_say_where_it_was_trained_on(done: Path, tmp_path: Path) -> None:
    ready("pretrain", done, tmp_path)
    change(tmp_path, **TINY, pretrain__split="all")
    said = stage("pretrain", tmp_path).stdout
    assert re.fullmatch(
        r"pretrain: simclr, 2 epochs \(all epochs done\), loss \d\.\d{3}; epoch 2 is kept, "
        r"kNN top-1 \d+\.\d\d % on val, which was trained on\n",
        said,
    )
    curves = {"curves/loss", "curves/lr"}
    for folder, name in ((tmp_path, "trained_val_knn_top1"), (done, "val_knn_top1")):
        tags = EventAccumulator(str(folder / "runs/tested/pretrain")).Reload().Tags()["scalars"]
        assert {tag for tag in tags if tag.startswith("curves/")} == {*curves, f"curves/{name}"}


def test_torchrun_with_two_gloo_processes_trains_as_one_process_does(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "data", tmp_path / "data")
    shutil.copy(done / "params.yaml", tmp_path)
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    result = stage("pretrain", tmp_path, *launcher)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("pretrain: simclr, 2 epochs (all epochs done) on 2 processes, loss ") == 1
    alone, together = (
        [float(row["loss"]) for row in rows(folder / "reports/pretrain/loss.csv")] for folder in (done, tmp_path)
    )
    assert together[0] == pytest.approx(alone[0], rel=1e-3)
    assert together[1] == pytest.approx(alone[1], rel=1e-2)  # rounding grows from step to step


def test_a_signal_ends_the_waiting_for_another_process_and_nothing_else() -> None:
    main_is_waiting = runpy.run_path(str(ROOT / "stages" / "pretrain.py"))["main_is_waiting"]
    alone, interrupted = Session(rank=0, world_size=1, device=torch.device("cpu")), Interruption()
    assert main_is_waiting(alone, interrupted, True)
    assert not main_is_waiting(alone, interrupted)
    interrupted.number = signal.SIGTERM
    assert not main_is_waiting(alone, interrupted)  # the run stops after its first step, with a checkpoint
    with pytest.raises(Stopped, match="stopped by SIGTERM while waiting for another process with the same experiment"):
        main_is_waiting(alone, interrupted, True)


BAD = {
    "losses__nt_xent__temperature": (0, "losses.nt_xent.temperature = 0"),
    "pretrain__batch_size": (4096, "pretrain.batch_size = 4096"),
    "pretrain__split": ("unlabelled", "data/beton/unlabelled.beton: this data set has no unlabelled split"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_parameters_end_in_one_line(key: str, done: Path, tmp_path: Path) -> None:
    value, message = BAD[key]
    change(tmp_path, **(TINY | {key: value}))
    (tmp_path / "data").symlink_to(done / "data")
    assert message in run("pretrain", tmp_path).error
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_lacks_something_says_what(name: str, tmp_path: Path) -> None:
    if name != "fetch":
        change(tmp_path)
    lacking = "params.yaml: not found" if name == "fetch" else "data/"
    assert run(name, tmp_path).error.startswith(lacking)
