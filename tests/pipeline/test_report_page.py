"""scripts/report-page in a scratch repository; the page is opened in Chromium where that is installed."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

from tests.helpers import browser
from tests.pipeline.test_review import ROOT, commit, predict, run

SCRIPT = ROOT / "scripts" / "report-page"
EVIL = "<script>alert('x')</script>&\"' onload=\"y\""
VOID = {"meta", "img"}


def report(folder: Path, epochs: int, top1: float, wrong: set[int], shade: int) -> None:
    """Have in `folder` what stages leave."""
    reports = folder / "reports"
    (folder / "params.yaml").write_text(
        f"# all\npretrain:\n  # how often\n  # each image\n  epochs: {epochs}\n  seed: 0\n"
    )
    predict(folder, wrong)
    (reports / "pretrain").mkdir(exist_ok=True)
    (reports / "draw").mkdir(exist_ok=True)
    (reports / "pretrain/loss.csv").write_text(
        "epoch,loss\n" + "".join(f"{k},{10 / k}\n" for k in range(1, epochs + 1))
    )
    (reports / "pretrain/run.json").write_text(json.dumps({"device": "cpu", "versions": {"torch": "2.14"}}))
    metrics = {"pretrained": {"top1": top1, "top5": 100.0}, "chosen": {"log10_l2": -3.0}}
    (reports / "linear_eval/metrics.json").write_text(json.dumps(metrics))
    classes = f"cat,{top1},30\n{EVIL.replace(chr(34), '')},50.0,{epochs}\n"
    (reports / "linear_eval/classes.csv").write_text(f"class,accuracy,images\n{classes}")
    Image.new("RGB", (64, 64), (shade, 0, 0)).save(reports / "draw/map.png")
    Image.new("RGB", (64, 64)).save(reports / "draw/views.png")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the commits `before` and `after`, and two experiments that differ in a seed."""
    folder = tmp_path_factory.mktemp("page") / "origin"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    report(folder, 3, 66.6667, set(range(20)), 0)
    commit(folder, "before")
    report(folder, 5, 86.6667, set(range(8)), 200)
    commit(folder, "after")
    base = run(folder, "git", "rev-parse", "after").stdout.strip()
    for seed, top1 in ((1, 80.0), (2, 90.0)):
        report(folder, 5, top1, set(range(8)), 200)
        losses = [f"{k},{10 / k + seed}\n" for k in range(1, 6 - (seed == 2))]  # the second one stops early
        (folder / "reports/pretrain/loss.csv").write_text("epoch,loss\n" + "".join(losses))
        text = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(text.replace("seed: 0", f"seed: {seed}"))
        commit(folder, f"seed-{seed}")
        run(folder, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-{seed}", f"seed-{seed}")
        run(folder, "git", "reset", "--quiet", "--hard", "after")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(origin, tmp_path / "clone"))


def page(folder: Path, *names: str) -> str:
    done = run(folder, str(SCRIPT), *names)
    assert done.stdout.startswith("runs/report.html: ")
    return (folder / "runs/report.html").read_text()


class Balance(HTMLParser):
    """Fails at an element that is not closed; keeps texts, and the addresses that the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        assert not [key for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def rows(text: str, section: str) -> list[list[str]]:
    """The cells of all rows of tables in a section."""
    body = text.partition(f'<section id="{section}">')[2].partition("</section>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells]


def test_two_commits_side_by_side(clone: Path) -> None:
    text = page(clone, "before", "after")
    assert ["linear_eval.pretrained.top1", "66.6667", "86.6667", "+20"] in rows(text, "metrics")
    assert ["linear_eval.pretrained.top5", "100", "100", "="] in rows(text, "metrics")
    assert rows(text, "parameters-that-differ")[1:] == [["pretrain.epochs", "3", "5", "how often each image"]]
    # of the two experiments too, which differ in seeds alone
    assert rows(text, "verdict")[1:] == [
        ["after", "within noise", "linear probe", "66.67", "85.56", "+18.89 ± 25.30", "one run and mean of 3 seeds"]
    ]
    assert ["cat, 30 images", "66.6667", "86.6667", "+20"] in rows(text, "classes")
    mistakes = rows(text, "mistakes")[1:]
    assert [sum(int(row[column]) for row in mistakes) for column in (1, 2)] == [20, 8]
    assert all(int(row[2]) - int(row[1]) == int(row[3]) < 0 for row in mistakes)
    assert [int(row[3]) for row in mistakes] == sorted(int(row[3]) for row in mistakes)
    assert text.count("<polyline") == 2
    assert text.count("data:image/png") == 3  # the map of each, the views once
    assert "views.png (the same)" in text
    assert "map.png (differs)" in text
    assert ["after", "device: cpu", "torch 2.14"] in rows(text, "made-by")


def test_a_picture_that_is_in_one_of_them_alone_is_not_called_the_same(clone: Path) -> None:
    (clone / "reports/draw/views.png").unlink()
    text = page(clone, "after", "workspace")
    assert "views.png (not in workspace)" in text
    assert "map.png (the same)" in text


def test_experiments_and_their_seeds(clone: Path) -> None:
    text = page(clone, "exp-1", "workspace")
    found = rows(text, "all-experiments")
    assert found[1][1:3] == ["3", "85.56 ± 5.09"]  # with the commit that they began at
    assert found[1][0].count(",") == 2
    assert {row[0]: row[-2] for row in found[3:]} == {"exp-1": "pretrain.seed=1", "exp-2": "pretrain.seed=2"}
    assert ["pretrain.seed", "1", "0", ""] in rows(text, "parameters-that-differ")


def test_runs_that_differ_in_seeds_alone_are_one_curve_with_a_band(clone: Path) -> None:
    text = page(clone, "before", "after", "exp-1", "exp-2")
    [band] = re.findall(r'<polygon points="([^"]*)"', text)
    [alone, together] = re.findall(r'<polyline points="([^"]*)"', text)
    assert len(alone.split()) == 3
    runs = [[10 / k + seed for k in range(1, 5)] for seed in (0, 1, 2)]  # all of them have four epochs
    means, lowest, highest = ([of(own[k] for own in runs) for k in range(4)] for of in (mean, min, max))
    found = [[float(point.split(",")[1]) for point in points.split()] for points in (together, band)]
    # pixels are a linear function of the values
    expected = [*means, *highest, *lowest[::-1]]
    assert len(found[0] + found[1]) == len(expected)
    slope, offset = np.polyfit(expected, found[0] + found[1], 1)
    assert slope < 0
    np.testing.assert_allclose(slope * np.array(expected) + offset, found[0] + found[1], atol=0.1)
    assert "</i>before</span>" in text
    assert "</i>after, exp-1, exp-2 (3 seeds)</span>" in text
    colors = re.findall(r'<i class="key" style="background:(#\w+)"></i>', text)
    assert colors[0] != colors[1] == colors[2] == colors[3]
    [verdict] = rows(text, "verdict")[1:]  # of their mean
    assert verdict[:2] == ["after, exp-1, exp-2", "within noise"]


def test_a_curve_of_one_point_is_a_dot(clone: Path) -> None:
    """As of kNN on val, if a short run is validated at its end alone."""
    (clone / "reports/pretrain/loss.csv").write_text("epoch,knn_top1\n4,5.5\n")
    text = page(clone, "before", "workspace")
    assert "knn_top1 on val by epoch" in text
    assert len(re.findall(r'<circle cx="[\d.]+" cy="[\d.]+" r="3" fill="#\w+">', text)) == 1
    assert "<circle" not in page(clone, "before", "after")


def test_the_same_seed_twice_is_no_band(clone: Path) -> None:
    run(clone, "git", "tag", "again", "seed-1")
    text = page(clone, "exp-1", "again", "workspace")
    assert (text.count("<polygon"), text.count("<polyline")) == (0, 3)


def test_without_arguments_it_is_the_last_commit_and_the_workspace(clone: Path) -> None:
    report(clone, 5, 70.0, set(range(8)), 200)
    assert ["linear_eval.pretrained.top1", "86.6667", "70", "-16.67"] in rows(page(clone), "metrics")


def test_the_page_is_whole_and_asks_for_nothing(clone: Path) -> None:
    text = page(clone, "before", "after", "exp-1")
    found = Balance(text)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in found.addresses)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", text)


def test_whatever_an_author_writes_is_text(clone: Path) -> None:
    evil = {"pretrain": {EVIL: EVIL, "epochs": 5}}
    (clone / "params.yaml").write_text(f"# {EVIL}\n{json.dumps(evil)}\n")
    (clone / "reports/linear_eval/metrics.json").write_text(json.dumps({EVIL: 1.0}))
    (clone / "reports/pretrain/run.json").write_text(json.dumps({"device": EVIL, "versions": {EVIL: EVIL}}))
    (clone / "reports/pretrain/loss.csv").write_text("epoch,</script><b>\n1,2\n2,3\n")
    run(clone, "git", "commit", "--quiet", "--all", "--message", EVIL)
    text = page(clone, "before", "HEAD")
    assert text.count("<script") == 1
    assert EVIL in "".join(Balance(text).texts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nowhere"], "there is no experiment, branch or commit nowhere; workspace is what is not committed"),
        (["--", "--all"], "there is no experiment, branch or commit --all; "),
        ([f"HEAD~{k}" for k in range(9)], "9 revisions are too many to compare; it takes 8 at most"),
        (["before", "empty"], "empty has no metrics in reports/ here"),
    ],
)
def test_what_cannot_be_compared_ends_in_one_line(names: list[str], message: str, clone: Path) -> None:
    run(clone, "git", "switch", "--quiet", "--orphan", "bare")
    run(clone, "git", "commit", "--quiet", "--allow-empty", "--message", "empty")
    run(clone, "git", "tag", "empty")
    done = run(clone, str(SCRIPT), *names, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"report-page: {message}")
    assert done.stderr.count("\n") == 1
    assert not (clone / "runs").exists()


def test_two_experiments_of_one_name_are_told_apart_by_their_commits(clone: Path) -> None:
    first, second = (run(clone, "git", "rev-parse", name).stdout.strip() for name in ("seed-1", "seed-2"))
    run(clone, "git", "update-ref", f"refs/exps/{first[:2]}/{first[2:]}/exp-1", second)
    done = run(clone, str(SCRIPT), "exp-1", check=False)
    assert done.stderr.startswith("report-page: 2 experiments are called exp-1; give the commit of one: ")
    page(clone, first)


SPOILT = {
    "metrics.json": [b"[" * 100_000, b'{"a": NaN, "b": 1e999}', b'{"a": ' + b"9" * 400 + b"}", b"\xff", b"[]"],
    "classes.csv": [b"a,b\n1,2\n", b"class,accuracy\nx,foo\n", b"a\rb,c\n1,2", b"\xff\x00"],
    "predictions.csv": [b"actual,predicted\n1\r2,3\n", b"actual\n" + b"x" * 140_000],
    "../pretrain/loss.csv": [b"epoch,loss\n1,3\n2,nan\n3,2\n4,inf\n", b"epoch,loss\n1,1e308\n2,-1e308\n"],
    "../pretrain/run.json": [b'{"versions": []}', b"null", b'{"versions": null, "device": [1]}'],
    "../../params.yaml": [b"a: 2001-99-99", b"a: !!int x", b"a: &x {b: *x}", b'a: "\\ud800"', b"[", b"\xff: 1"],
    "../draw/map.png": [b"", b"no picture", b"\x89PNG" + bytes(5 << 20)],
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_read_is_left_out(name: str, clone: Path) -> None:
    for content in SPOILT[name]:
        shutil.rmtree(clone / "runs", ignore_errors=True)
        run(clone, "git", "checkout", "--quiet", "after", "--", ".")
        (clone / "reports/linear_eval" / name).write_bytes(content)
        (clone / "reports/embed").mkdir(exist_ok=True)
        (clone / "reports/embed/metrics.json").write_text('{"knn_top1": 1.0}')
        text = page(clone, "before", "workspace")
        Balance(text)
        assert "nan" not in "".join(re.findall(r'points="([^"]*)"', text))
        assert len(text) < 2_000_000


def test_an_older_page_stays_where_none_can_be_written(clone: Path) -> None:
    text = page(clone, "before", "after")
    assert run(clone, str(SCRIPT), "nowhere", check=False).returncode == 1
    assert run(clone, str(SCRIPT), "after", "--output", "params.yaml/x", check=False).stderr.startswith(
        "report-page: params.yaml/x: cannot be written ("
    )
    for output in (".", "", "/", "reports", "reports/..", "/tmp/.."):
        done = run(clone, str(SCRIPT), "after", "--output", output, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.endswith(": cannot be written (Is a directory)\n")
    os.mkfifo(clone / "pipe")
    done = run(clone, str(SCRIPT), "after", "--output", "pipe", check=False)
    assert (done.returncode, done.stderr) == (1, "report-page: pipe: cannot be written (it is no file)\n")
    assert (clone / "pipe").is_fifo()
    assert not list(clone.rglob("*.part"))
    assert (clone / "runs/report.html").read_text() == text


def test_a_link_is_written_through(clone: Path) -> None:
    (clone / "sent.html").write_text("before")
    (clone / "link.html").symlink_to("sent.html")
    run(clone, str(SCRIPT), "after", "--output", "link.html")
    assert (clone / "link.html").is_symlink()
    assert (clone / "sent.html").read_text().startswith("<!DOCTYPE html>")


def test_experiments_of_other_code_are_not_put_together(clone: Path) -> None:
    base = run(clone, "git", "rev-parse", "after").stdout.strip()
    (clone / "src").mkdir()
    (clone / "src/loss.py").write_text("pass")
    report(clone, 5, 10.0, set(range(8)), 200)
    (clone / "params.yaml").write_text((clone / "params.yaml").read_text().replace("seed: 0", "seed: 3"))
    commit(clone, "other-code")
    run(clone, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-3", "other-code")
    run(clone, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-4", "seed-2")  # the same run twice
    found = rows(page(clone, "after"), "all-experiments")
    assert found[1][1:3] == ["3", "85.56 ± 5.09"]  # with the commit that they began at
    assert [row[-2] for row in found if row[0] == "exp-3"] == ["pretrain.seed=3 (other code)"]


def seeds(folder: Path, *arguments: str) -> str:
    """What scripts/seeds says, of which failures are one line."""
    done = run(folder, str(ROOT / "scripts" / "seeds"), *arguments, check=False)
    assert done.returncode == (1 if done.stderr else 0)
    assert not done.stderr or (done.stdout, done.stderr.count("\n")) == ("", 1)
    return done.stdout or done.stderr


def test_mean_and_deviation_over_seeds_are_a_file_of_metrics(clone: Path) -> None:
    file = clone / "reports/seeds.json"
    base = run(clone, "git", "rev-parse", "HEAD").stdout[:10]
    said = f"reports/seeds.json: 3 seeds of {base}, exp-1, exp-2\n  linear_eval.pretrained.top1: 85.56 ± 5.09\n"
    assert seeds(clone) == said
    values = [86.6667, 80.0, 90.0]
    found = json.loads(file.read_text())
    assert found["seeds"] == 3
    assert list(found["metrics"]) == ["linear_eval.pretrained.top1"]  # the others are not in these reports
    top1 = found["metrics"]["linear_eval.pretrained.top1"]
    assert top1["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    assert top1["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-5)
    assert top1["commit"] == values[0]
    assert found["commit"] == base
    assert "3 seeds" in seeds(clone, "exp-1")
    content = file.read_bytes()
    assert seeds(clone, "before").startswith("seeds: no experiment differs from before in seeds alone")
    assert seeds(clone, "workspace").startswith("seeds: the workspace is no commit")
    assert seeds(clone, "nowhere").startswith("seeds: there is no experiment, branch or commit nowhere")
    assert file.read_bytes() == content


@pytest.mark.parametrize(("seeds_recorded", "basis"), [(2, "mean of 3 seeds"), (5, "mean of 5 seeds")])
def test_noise_is_that_of_more_seeds_whether_they_are_here_or_recorded(
    seeds_recorded: int, basis: str, clone: Path
) -> None:
    """A clone with experiments of its own says what any other clone does."""
    recorded = {"mean": 86.0, "sd": 1.0, "seeds": seeds_recorded, "commit": 86.6667}
    file = clone / "reports/seeds.json"
    file.write_text(json.dumps({"metrics": {"linear_eval.pretrained.top1": recorded}}))
    (row,) = [row for row in rows(page(clone, "before", "workspace"), "verdict") if row[2] == "linear probe"]
    assert row[-1] == f"one run and {basis}"


def test_fewer_seeds_than_were_recorded_are_mentioned(clone: Path) -> None:
    recorded = {"mean": 86.0, "sd": 1.0, "seeds": 5, "commit": 86.6667}
    (clone / "reports/seeds.json").write_text(json.dumps({"metrics": {"linear_eval.pretrained.top1": recorded}}))
    last = "That of the last commit is of 5 seeds: `git checkout reports/seeds.json` brings it back"
    assert last not in seeds(clone)  # it is not committed
    (clone / "reports/seeds.json").write_text(json.dumps({"metrics": {"linear_eval.pretrained.top1": recorded}}))
    commit(clone, "recorded")
    run(clone, "git", "update-ref", "refs/exps/aa/" + "a" * 38 + "/exp-1", "refs/tags/seed-1")
    run(clone, "git", "update-ref", "refs/exps/aa/" + "a" * 38 + "/exp-2", "refs/tags/seed-2")
    assert seeds(clone).splitlines()[-1] == last


def test_a_name_of_two_things_is_refused(clone: Path) -> None:
    base = run(clone, "git", "rev-parse", "after").stdout.strip()
    run(clone, "git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/before", "seed-1")
    done = run(clone, str(SCRIPT), "before", check=False)
    assert done.stderr == (
        "report-page: before is an experiment, and a branch, tag or commit; give the commit of one of them\n"
    )


PROBE = """
document.querySelectorAll("details").forEach(details => { details.open = true; });
Object.assign(document.body.style, {width: "360px", margin: "0"});
const free = [...document.querySelectorAll("body *")].filter(element => !element.parentElement.closest(".box, svg"));
const root = document.documentElement.dataset;
root.right = Math.max(...free.map(element => element.getBoundingClientRect().right));
const table = document.querySelector("#metrics table");
const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
table.querySelectorAll("thead button")[1].click();
root.up = names().join();
table.querySelectorAll("thead button")[1].click();
root.down = names().join();
const shown = () => [...table.tBodies[0].rows].filter(row => !row.hidden).length;
root.differing = shown();
document.querySelector("#metrics input[type=checkbox]").click();
root.all = shown();
"""


def probed(folder: Path, text: str, probe: str) -> browser.Shown:
    """What a page has come to after a further script."""
    (folder / "probe.html").write_text(text.replace("</body>", f"<script>{probe}</script></body>"))
    return browser.show(folder / "probe.html")


@browser.needed
def test_the_page_in_a_browser(clone: Path) -> None:
    """No error, no overflow at 360 px, tables that sort and filter."""
    shown = probed(clone, page(clone, "before", "after"), PROBE)
    assert not shown.console
    found = shown.data
    assert 0 < float(found["right"]) <= 360
    assert found["up"].split(",") == found["down"].split(",")[::-1]
    assert (found["differing"], found["all"]) == ("1", "3")


COMPLAINTS = {
    "Uncaught Error: thrown": "throw new Error('thrown')",
    '"said"': "console.error('said')",
    "Content Security Policy": "new Image().src = 'https://example.org/picture.png'",
}


@browser.needed
@pytest.mark.parametrize("words", COMPLAINTS)
def test_what_the_browser_complains_of_is_seen(words: str, clone: Path) -> None:
    """So that the test above can fail."""
    [said] = probed(clone, page(clone, "after"), COMPLAINTS[words]).console
    assert words in said
