"""The embedding maps of the page of `make report`; it is opened in Chromium where that is installed."""

import base64
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from simclr.core import arrays
from tests.helpers import browser
from tests.pipeline.test_changed_images import IMAGES, record, write_beton
from tests.pipeline.test_report_page import Balance
from tests.pipeline.test_review import commit, run

FILE = "data/embedding.safetensors"
EVIL = "</li><script>alert('x')</script>&amp;\""
Show = Callable[..., tuple[str, set[str]]]


def embed(folder: Path, data: str, seed: int, samples: Sequence[int] = tuple(range(60))) -> npt.NDArray[np.float32]:
    """Have in `folder` what the stage leaves: a map of `samples`, which is returned, in data and in DVC's cache."""
    points = np.random.default_rng(seed).normal(3, 20, (len(samples), 2)).astype(np.float32)
    write_map(folder, data, np.array(samples), points)
    (folder / "reports/embed").mkdir(exist_ok=True)
    (folder / "reports/embed/metrics.json").write_text(json.dumps({"knn_top1": 90.0 + seed}))
    (folder / "reports/draw").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (seed, 0, 0)).save(folder / "reports/draw/map.png")
    return points


def write_map(folder: Path, data: str, samples: npt.NDArray[np.integer], points: npt.NDArray[np.floating]) -> None:
    arrays.save(folder / FILE, {"samples": samples, "points": points})
    record(folder, data, "embed", FILE)
    md5 = hashlib.md5((folder / FILE).read_bytes()).hexdigest()
    (folder / ".dvc/cache/files/md5" / md5[:2]).mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / FILE, folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a repository with the maps of two commits, `before` and `after`, which is in data."""
    folder = tmp_path / "repository"
    (folder / ".dvc").mkdir(parents=True)
    run(folder, "git", "init", "--quiet")
    (folder / ".dvc/config").touch()
    (folder / ".gitignore").write_text("/data\n/.dvc/cache\n/.dvc/tmp\n")
    (folder / "params.yaml").write_text("seed: 0\n")
    data = write_beton(folder)
    for seed, name in enumerate(("before", "after")):
        embed(folder, data, seed)
        commit(folder, name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch, repository: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    from review import maps

    return maps


@pytest.fixture
def show(maps: ModuleType) -> Show:
    """The HTML for some revisions, and the names of those that have a map."""
    from review.column import Column
    from review.revision import resolve

    return lambda *names: maps.maps([Column(resolve(name)) for name in names])


@pytest.fixture
def page(maps: ModuleType) -> Callable[..., str]:
    """The whole page for some revisions."""
    from review import page
    from review.column import Column
    from review.revision import resolve

    return lambda *names: page.page([Column(resolve(name)) for name in names], [], "maps")


def drawn(text: str) -> dict[str, dict[int, tuple[float, float, str]]]:
    """For each map the place and the color of the points, by the cell of their image."""
    found = {}
    for names, svg in re.findall(r"<figcaption>(.*?)</figcaption><svg.*?>(.*?)</svg>", text):
        found[names] = {
            int(cell): (float(x), float(y), color)
            for color, circles in re.findall(r'<g fill="(.*?)">(.*?)</g>', svg)
            for x, y, cell in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="4" data-cell="(\d+)"', circles)
        }
    return found


def words(text: str) -> list[str]:
    return [html.unescape(item) for item in re.findall("<li>(.*?)</li>", text)]


def cells(text: str) -> list[int]:
    """Which of the images each cell of the sheet is nearest to."""
    [content] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), np.float64)
    rows, columns = sheet.shape[0] // 32, sheet.shape[1] // 32
    squares = sheet.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[: len(words(text))]
    enlarged = IMAGES.repeat(4, axis=1).repeat(4, axis=2).astype(np.float64)
    return [int(np.abs(enlarged - square).mean((1, 2, 3)).argmin()) for square in squares]


def test_each_map_has_the_same_images_where_its_points_are(repository: Path, show: Show) -> None:
    text, names = show("before", "workspace")
    assert names == {"before", "workspace"}
    assert cells(text) == list(range(60))
    assert words(text) == [f"{k % 3}, test image {k}" for k in range(60)]
    found = drawn(text)
    assert list(found) == ["before", "workspace"]
    for seed, own in enumerate(found.values()):
        points = np.random.default_rng(seed).normal(3, 20, (60, 2)).astype(np.float32)
        placed = np.array([own[cell][:2] for cell in range(60)])
        # one scale for both axes, and no less than the largest that fits; y goes up on a map and down on a screen
        scale = (placed[:, 0].max() - placed[:, 0].min()) / np.ptp(points[:, 0])
        expected = scale * (points - points.mean(0)) * [1, -1]
        np.testing.assert_allclose(placed - placed.mean(0), expected, atol=0.2)
        assert (placed.min(), placed.max()) == (8, 392)
        colors = [own[cell][2] for cell in range(60)]
        assert colors == colors[:3] * 20
        assert len(set(colors)) == 3
    assert re.findall(r'background:([^"]*)"></i>(\d)</span>', text) == [(colors[k], str(k)) for k in range(3)]


def test_the_same_map_is_drawn_once(show: Show) -> None:
    text, names = show("before", "after", "workspace")
    assert list(drawn(text)) == ["before", "after, workspace"]
    assert names == {"before", "after", "workspace"}


def test_of_many_images_some_are_shown_the_same_in_each_map(
    repository: Path, show: Show, maps: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MOST", 10)
    text, _ = show("before", "after")
    assert len(words(text)) == 10
    assert cells(text) == sorted(int(item.rpartition(" ")[2]) for item in words(text))
    assert all(own.keys() == set(range(10)) for own in drawn(text).values())
    assert "10 of 60 test images" in text


def test_maps_of_other_images_have_each_some_of_theirs(
    repository: Path, show: Show, maps: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "MOST", 10)
    embed(repository, write_beton(repository), 5, samples=[7])
    text, _ = show("before", "workspace")
    first, second = drawn(text).values()
    assert [words(text)[cell] for cell in second] == ["1, test image 7"]
    assert len(words(text)) == len(first | second) == 10


def test_images_without_labels_have_one_color_and_no_class(repository: Path, show: Show) -> None:
    embed(repository, write_beton(repository, classes=()), 5)
    text, _ = show("workspace")
    [own] = drawn(text).values()
    assert len({color for *_, color in own.values()}) == 1
    assert words(text) == [f"test image {k}" for k in range(60)]
    assert "legend" not in text


@pytest.mark.parametrize(("count", "legend"), [(12, True), (30, False)])
def test_many_classes_have_each_a_color(count: int, legend: bool, repository: Path, show: Show) -> None:
    embed(repository, write_beton(repository, classes=[f"class {k}" for k in range(count)]), 5)
    text, _ = show("workspace")
    [own] = drawn(text).values()
    assert len({color for *_, color in own.values()}) == count
    assert ("legend" in text) == legend


def test_names_of_classes_are_text(repository: Path, show: Show) -> None:
    embed(repository, write_beton(repository, classes=["cat", EVIL]), 5)
    text, _ = show("workspace")
    Balance(text)
    assert "<script" not in text
    assert words(text)[1] == f"{EVIL}, test image 1"


def test_points_that_are_all_in_one_place_are_drawn_in_the_middle(repository: Path, show: Show) -> None:
    write_map(repository, write_beton(repository), np.arange(60), np.ones((60, 2), np.float32))
    [own] = drawn(show("workspace")[0]).values()
    assert {place for *place, _ in map(tuple, own.values()) for place in [tuple(place)]} == {(200, 200)}


def spoil_map(samples: npt.NDArray[np.integer], points: npt.NDArray[np.floating]) -> Callable[[Path], None]:
    return lambda folder: write_map(folder, write_beton(folder), samples, points)


def spoil_pixels(folder: Path) -> None:
    (folder / "data/beton/test.beton").write_bytes(b"abc")


UNTOLD = "neither run.json nor the cache of DVC here says which data workspace is about"
NO_MAP = f"{FILE}: no map of the test images; the embed stage writes it"
SPOILT = {
    f"there is no {FILE} here": lambda folder: (folder / FILE).unlink(),
    "there is no data/beton here": lambda folder: (folder / "data/beton").rename(folder / "elsewhere"),
    "data/beton holds other data here; ": lambda folder: record(folder, "0" * 64, "embed", FILE),
    "data/beton/test.beton: 3 bytes are no .beton": spoil_pixels,
    UNTOLD: lambda folder: (folder / "reports/convert/run.json").unlink(),
    f"{UNTOLD}.": lambda folder: (folder / "dvc.lock").write_text("["),
    f"{UNTOLD}. ": lambda folder: arrays.save(folder / FILE, {}),
    f"{FILE}: damaged; the embed stage writes it": lambda folder: [
        (folder / FILE).write_text("abc"),
        record(folder, write_beton(folder), "embed", FILE),
    ],
    f"{NO_MAP}": spoil_map(np.arange(1, 61), np.zeros((60, 2), np.float32)),
    f"{NO_MAP}.": spoil_map(np.arange(-1, 59), np.zeros((60, 2), np.float32)),
    f"{NO_MAP}. ": spoil_map(np.arange(59), np.zeros((60, 2), np.float32)),
    f"{NO_MAP}. m": spoil_map(np.arange(60), np.full((60, 2), np.nan, np.float32)),
    f"{NO_MAP}. ma": spoil_map(np.arange(0), np.zeros((0, 2), np.float32)),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_why_there_is_none_is_said(reason: str, repository: Path, show: Show) -> None:
    SPOILT[reason](repository)
    text, names = show("workspace")
    assert names == set()
    assert text.startswith(f"<p>Not shown of workspace: {reason}")
    assert text.endswith(". map.png is among the pictures.</p>")
    assert text.count("<p>") == 1


def cached(folder: Path, content: bytes, suffix: str = "", md5: str = "") -> str:
    """Have a file in DVC's cache; returns the MD5 that it is found by."""
    md5 = md5 or hashlib.md5(content).hexdigest()
    path = folder / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


@pytest.mark.parametrize("spoil", [None, "list", "info"])
def test_of_results_from_the_run_cache_the_data_are_those_in_the_cache(
    spoil: str | None, repository: Path, show: Show
) -> None:
    """Where convert's run.json is of another result."""
    data = write_beton(repository)
    facts = {"outs": {"data/beton": "other.dir"}, "fingerprints": {"data": "other"}}
    (repository / "reports/convert/run.json").write_text(json.dumps(facts))
    info = b"{" if spoil == "info" else (repository / "data/beton/dataset.json").read_bytes()
    listing = [{"relpath": "dataset.json", "md5": cached(repository, info)}]
    cached(repository, b"[3]" if spoil == "list" else json.dumps(listing).encode(), ".dir", data[:32])
    text, names = show("workspace")
    assert names == (set() if spoil else {"workspace"})
    assert (UNTOLD in text) == bool(spoil)


def test_another_revision_needs_the_cache_of_dvc(repository: Path, show: Show) -> None:
    shutil.rmtree(repository / ".dvc/cache")
    text, names = show("before", "after", "workspace")
    assert names == {"workspace"}
    reason = f"{FILE} is not in the cache of DVC here"
    assert f"<p>Not shown of before, after: {reason}. map.png is among the pictures.</p>" in text
    assert list(drawn(text)) == ["workspace"]


def test_a_damaged_image_leaves_all_maps_out(repository: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    from simclr.core.errors import UserError
    from simclr.data import loader

    def fail(*_: object) -> None:
        raise UserError("data/beton/test.beton: the JPEG of sample 3 is damaged; run convert again")

    monkeypatch.setattr(loader, "thumbnails", fail)
    text, names = show("before", "workspace")
    assert (text.count("<p>"), names) == (1, set())
    assert text.startswith("<p>Not shown of before, workspace: data/beton/test.beton: the JPEG of sample 3 is damaged")


def test_a_path_in_dvc_lock_is_no_file_of_the_cache(repository: Path, maps: ModuleType) -> None:
    from review import dvc_cache

    (repository / ".dvc/cache/files/secret").touch()
    assert dvc_cache.find("../../secret") is None
    assert dvc_cache.find("..secret") is None
    md5 = hashlib.md5((repository / FILE).read_bytes()).hexdigest()
    assert dvc_cache.find(md5).read_bytes() == (repository / FILE).read_bytes()


def test_the_picture_of_a_map_is_folded_up_where_the_map_is_drawn(repository: Path, page: Callable[..., str]) -> None:
    summary = r'<details( open="")?><summary>map.png \(differs\)'
    assert re.findall(summary, page("before", "workspace")) == [""]
    shutil.rmtree(repository / ".dvc/cache")
    assert re.findall(summary, page("before", "workspace")) == [' open=""']


PROBE = """
const root = document.documentElement.dataset;
const [first, second] = document.querySelectorAll("#maps svg");
const [box, text] = [document.querySelector(".shown"), document.querySelector(".shown span")];
const say = name => {
  root[name] = box.hidden ? "nothing" : text.textContent;
};
const send = (type, point, pointerType = "mouse") => {
  const at = point.getBoundingClientRect();
  const [clientX, clientY] = [at.left + at.width / 2, at.top + at.height / 2];
  point.ownerSVGElement.dispatchEvent(new PointerEvent(type, {clientX, clientY, pointerType, bubbles: true}));
};
const of = (svg, cell) => svg.querySelector(`[data-cell="${cell}"]`);
const ringed = svg => {
  const ring = svg.querySelector(".ring");
  const here = [...svg.querySelectorAll("[data-cell]")].filter(point =>
    ["cx", "cy"].every(name => point.getAttribute(name) === ring.getAttribute(name)));
  return getComputedStyle(ring).display === "none" ? "" : here.map(point => point.dataset.cell).join();
};
say("before");
send("pointermove", of(first, 31));
say("over");
root.rings = [ringed(first), ringed(second)].join("|");
const [pane, sheet] = [box.firstChild, box.querySelector("img")].map(element => element.getBoundingClientRect());
root.cell = [(pane.left - sheet.left) / pane.width, (pane.top - sheet.top) / pane.height].join("|");
root.sheet = [sheet.width / pane.width, sheet.height / pane.height].join("|");
root.right = Math.max(...[...document.querySelectorAll("#maps [data-cell]")].map(point => {
  point.focus();
  return box.getBoundingClientRect().right;
}));
root.width = document.documentElement.scrollWidth;
send("pointerleave", of(first, 31));
say("left");
send("pointerdown", of(second, 17), "touch");
send("pointerleave", of(second, 17), "touch");
say("tapped");
document.body.dispatchEvent(new PointerEvent("pointerdown", {bubbles: true}));
say("elsewhere");
of(second, 5).focus();
say("focused");
const from = Number(of(second, 5).getAttribute("cx"));
of(second, 5).dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
say("next");
root.ahead = Number(document.activeElement.getAttribute("cx")) > from;
root.stops = second.querySelectorAll('[tabindex="0"]').length;
document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
say("escaped");
"""


PHONE = """<!DOCTYPE html><html lang="en"><title>phone</title>
<iframe width="360" height="700" srcdoc="{}"></iframe><script>
const [root, frame] = [document.documentElement, document.querySelector("iframe")];
frame.onload = () => Object.assign(root.dataset, frame.contentDocument.documentElement.dataset);
</script></html>
"""


@browser.needed
def test_the_image_under_the_pointer_appears(repository: Path, page: Callable[..., str]) -> None:
    text = page("before", "workspace")
    Balance(text)
    probe = text.replace("</body>", f"<script>{PROBE}</script></body>")
    (repository / "phone.html").write_text(PHONE.format(html.escape(probe)))
    shown = browser.show(repository / "phone.html")
    assert not shown.console
    found = shown.data
    assert [found[when] for when in ("before", "left", "elsewhere", "escaped")] == ["nothing"] * 4
    assert (found["over"], found["rings"]) == ("1, test image 31", "31|31")
    assert [round(float(number), 3) for number in found["cell"].split("|")] == [31 % 25, 31 // 25]
    assert [round(float(number), 3) for number in found["sheet"].split("|")] == [25, 3]
    assert (found["tapped"], found["focused"]) == ("2, test image 17", "2, test image 5")
    assert found["next"] not in ("nothing", found["focused"])
    assert (found["ahead"], found["stops"]) == ("true", "1")
    assert 300 < float(found["right"]) <= float(found["width"]) <= 360
