"""A folder of images without labels, through all stages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simclr.core import arrays
from tests.helpers.betons import noise
from tests.helpers.programs import STAGES, TINY, change, run

PARAMETERS = {
    **TINY, "fetch__source": "folder", "fetch__folder": "pictures", "pretrain__batch_size": 8,
    "pretrain__validation__neighbors": 2, "convert__val_fraction": 0.3, "finetune__batch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without_labels")
    (folder / "pictures" / "more").mkdir(parents=True)
    for number, pixels in enumerate(noise(40, 8, seed=0)):
        Image.fromarray(pixels).save(folder / "pictures" / ("more" if number % 2 else "") / f"{number}.png")
    change(folder, **PARAMETERS)
    for name in STAGES:
        ended = run(name, folder)
        assert ended.code == 0, ended.stderr
    return folder


def metrics(folder: Path, stage: str) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder / f"reports/{stage}/metrics.json").read_text())
    return values


def test_what_needs_no_labels_is_measured(finished: Path) -> None:
    assert metrics(finished, "pretrain").keys() == {"loss", "kept_epoch", "epochs", "stopped"}
    assert metrics(finished, "evaluate").keys() == {"health", "invariance"}
    for stage in ("embed", "linear_eval", "finetune"):
        assert metrics(finished, stage) == {}


def test_map_and_neighbors_are_made(finished: Path) -> None:
    found = arrays.load(finished / "data/embedding.safetensors", ["points", "queries", "nearest"], "embed")
    assert len(found["points"]) > 5
    assert np.isfinite(found["points"]).all()
    pictures = {
        path.relative_to(finished / "reports/draw").as_posix() for path in finished.rglob("reports/draw/**/*.png")
    }
    assert {"map.png", "neighbors.png", "views.png", "samples/train.png", "samples/test.png"} <= pictures


def test_what_dvc_lists_is_there(finished: Path) -> None:
    for name in ("pretrain/knn.csv", "linear_eval/predictions.csv", "linear_eval/classes.csv", "convert/classes.csv"):
        assert len((finished / "reports" / name).read_text().splitlines()) == 2, name
    for name in ("confusion", "probes"):
        assert (finished / f"reports/draw/{name}.png").exists()


def test_the_card_has_no_accuracies(finished: Path) -> None:
    card = (finished / "reports/card/model_card.md").read_text()
    assert "which have no labels: there are no accuracies" in card
    assert "| Labels | none |" in card
    assert "top-1" not in card


def small_folder(folder: Path, count: int, **parameters: object) -> None:
    (folder / "pictures").mkdir()
    for number, pixels in enumerate(noise(count, 8, seed=0)):
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png")
    change(folder, **{**PARAMETERS, "convert__val_fraction": 0.1, **parameters})
    assert run("fetch", folder).code == 0


def test_five_images_are_enough(tmp_path: Path) -> None:
    small_folder(tmp_path, 5, pretrain__batch_size=2, finetune__batch_size=64)
    for name in ("convert", "pretrain", "embed"):
        ended = run(name, tmp_path)
        assert ended.code == 0, ended.stderr


def test_fewer_are_refused_by_convert(tmp_path: Path) -> None:
    small_folder(tmp_path, 4)
    assert run("convert", tmp_path).error == (
        "4 images without labels are too few: train and test take 2, and val 1, so 5"
    )


def test_what_learns_from_labels_is_refused(finished: Path) -> None:
    change(finished, **PARAMETERS | {"pretrain__loss": "supervised"})
    assert run("pretrain", finished).error.startswith(
        'params.yaml: pretrain.loss = "supervised" is not allowed; it takes'
    )
