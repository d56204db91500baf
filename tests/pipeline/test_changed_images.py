"""The images that one probe has right and another wrong, as the page of `make report` shows them."""

import base64
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from simclr.core import fingerprint
from simclr.data import converted
from simclr.data.converted import DatasetInfo
from tests.helpers import betons
from tests.pipeline.test_review import ROOT, commit, predict, run

IMAGES = betons.noise(60, 8, seed=0)
FILE = "reports/linear_eval/predictions.csv"
Show = Callable[[str, str], str]


def record(folder: Path, data: str, stage: str = "linear_eval", file: str = FILE) -> None:
    """Have dvc.lock and the run.json of convert in `folder` say that the `file` of a stage is about `data`."""
    md5 = hashlib.md5((folder / file).read_bytes()).hexdigest()
    deps, outs = [{"path": "data/beton", "md5": f"{data[:32]}.dir"}], [{"path": file, "md5": md5}]
    (folder / "dvc.lock").write_text(json.dumps({"stages": {stage: {"deps": deps, "outs": outs}}}))
    facts = {"outs": {"data/beton": f"{data[:32]}.dir"}, "fingerprints": {"data": data}}
    (folder / "reports/convert").mkdir(parents=True, exist_ok=True)
    (folder / "reports/convert/run.json").write_text(json.dumps(facts))


def write_beton(folder: Path, classes: Sequence[str] = ("0", "1", "2")) -> str:
    """Have the test images in `folder`, of the classes by turns; returns the digest of the data."""
    beton = folder / "data/beton"
    beton.mkdir(parents=True, exist_ok=True)
    betons.stored(beton / "test.beton", IMAGES, np.arange(60) % len(classes) if classes else np.full(60, -1))
    info = DatasetInfo(list(classes), [0.5] * 3, [0.2] * 3, {"test": fingerprint.of_file(beton / "test.beton")})
    converted.save_info(beton, info)
    return fingerprint.of_values(info.digests)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a repository whose data are those of the commits `before`, with 20 mistakes, and `after`,
    with three of these and two more."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    (folder / ".gitignore").write_text("data\n")
    data = write_beton(folder)
    for name, wrong in (("before", set(range(20))), ("after", {0, 5, 19, 40, 41})):
        predict(folder, wrong)
        record(folder, data)
        commit(folder, name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def changed_images(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from review import changed_images

    return changed_images


@pytest.fixture
def show(changed_images: ModuleType) -> Show:
    """The HTML for two revisions."""
    from review.revision import resolve

    return lambda before, after: str(changed_images.changed_images(resolve(before), resolve(after)))


def shown(html: str) -> list[tuple[int, str]]:
    """The number of the image that each picture is of, and what stands below."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)".*?<figcaption>(.*?)</figcaption>', html)
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) for content, _ in found]
    enlarged = [np.kron(image, np.ones((8, 8, 1), np.uint8)) for image in IMAGES]
    numbers = [[k for k, image in enumerate(enlarged) if np.array_equal(image, picture)] for picture in pixels]
    return [(number, words) for [number], (_, words) in zip(numbers, found, strict=True)]


def test_they_are_the_images_of_test_that_the_predictions_are_about(repository: Path, show: Show) -> None:
    gained, lost = show("before", "after").split("<p>")[1:]
    assert gained.startswith("17 gained, which before takes for others.")
    expected = [k for k in range(20) if k not in (0, 5, 19)]
    assert shown(gained) == [(k, f"{k % 3} taken for {(k + 1) % 3}") for k in expected]
    assert lost.startswith("2 lost, which after takes for others.")
    assert shown(lost) == [(40, "1 taken for 2"), (41, "2 taken for 0")]


def test_of_many_some_from_all_of_test_are_shown(repository: Path, show: Show) -> None:
    data = json.loads((repository / "reports/convert/run.json").read_text())["fingerprints"]["data"]
    predict(repository, set(range(30, 60)))
    record(repository, data)
    _, lost = show("before", "workspace").split("<p>")[1:]
    assert lost.startswith("30 lost, which workspace takes for others; 24 are shown.")
    numbers = [number for number, _ in shown(lost)]
    assert len(set(numbers)) == 24
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (30, 58)


def test_the_same_predictions_need_no_data(repository: Path, show: Show) -> None:
    (repository / "data").rename(repository / "elsewhere")
    assert re.findall(r"<p>(.*?)</p>", show("after", "workspace")) == ["None gained.", "None lost."]


def spoil_dataset(folder: Path) -> None:
    file = folder / "data/beton/dataset.json"
    file.write_text(file.read_text().replace('"test": "', '"test": "0'))


def spoil_labels(folder: Path) -> None:
    betons.stored(folder / "data/beton/test.beton", IMAGES[:50], np.arange(50) % 3)


UNTOLD = "neither run.json nor the cache of DVC here says which data workspace is about"
SPOILT = {
    "there is no data/beton here": lambda folder: (folder / "data/beton").rename(folder / "elsewhere"),
    "data/beton holds other data here": spoil_dataset,
    "data/beton holds other data here; ": spoil_labels,
    "data/beton/test.beton: 3 bytes are no .beton": lambda folder: (folder / "data/beton/test.beton").write_text("abc"),
    "data/beton/dataset.json: damaged": lambda folder: (folder / "data/beton/dataset.json").write_text("["),
    "the data are not the same": lambda folder: record(folder, "0" * 64),
    f"{UNTOLD}": lambda folder: (folder / "reports/convert/run.json").unlink(),
    f"{UNTOLD}.": lambda folder: (folder / "dvc.lock").write_text("["),
    f"{UNTOLD}.<": lambda folder: predict(folder, {1}),
    "the test images are not the same": lambda folder: predict(folder, set(), images=50),
    "the test images have no labels": lambda folder: (folder / FILE).write_text("actual,predicted\n,\n"),
    "workspace has no predictions of a linear probe": lambda folder: (folder / FILE).unlink(),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_why_they_are_not_shown_is_said(reason: str, repository: Path, show: Show) -> None:
    SPOILT[reason](repository)
    before = "workspace" if "labels" in reason else "before"
    html = show(before, "workspace" if before == "before" else "after")
    assert f"<p>Not shown: {reason}" in html
    assert "<img" not in html


def test_without_the_package_the_rest_of_the_page_is_written(
    repository: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "simclr"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "simclr", None)
    assert "<p>Not shown: reading data/beton needs the environment on the PATH (" in show("before", "after")
