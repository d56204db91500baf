"""scripts/review-comment in a scratch repository, cloned without its DVC cache, as on a machine of CI."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.stats import binomtest
from scripts.review import markdown
from scripts.review.verdict import Verdict

from tests.helpers.programs import unread

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "review-comment"

PIPELINE = """\
stages:
  prepare:
    cmd: echo images > images.txt
    params:
    - prepare
    outs:
    - images.txt
  train:
    cmd: python train.py
    deps:
    - images.txt
    - train.py
    params:
    - train
    outs:
    - reports/map.png
    metrics:
    - reports/metrics.json:
        cache: false
    plots:
    - reports/loss.csv:
        cache: false
    - reports/views.png:
        cache: false
"""
TRAIN = """\
import json
import pathlib

lr = float(pathlib.Path("params.yaml").read_text().split("lr: ")[1])
reports = pathlib.Path("reports")
reports.mkdir(exist_ok=True)
reports.joinpath("map.png").write_text(f"map {lr}")
reports.joinpath("views.png").write_text("views")
reports.joinpath("loss.csv").write_text(f"step,loss\\n0,{lr}\\n")
reports.joinpath("metrics.json").write_text(json.dumps({"accuracy": 1 - lr}))
"""
UNRECORDED = "- `train`: not recorded, as of results from DVC's run cache"
PARAMS = "prepare:\n  seed: 0\ntrain:\n  lr: 0.25\n"


def environment(folder: Path) -> dict[str, str]:
    """With this environment first in the PATH, and away from the user's settings."""
    home = str(folder.parent)
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": home,
        "DVC_GLOBAL_CONFIG_DIR": home,
        "DVC_SYSTEM_CONFIG_DIR": home,
        "DVC_SITE_CACHE_DIR": home,
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    for who in ("AUTHOR", "COMMITTER"):
        variables |= {f"GIT_{who}_NAME": "tester", f"GIT_{who}_EMAIL": "tester@example.org"}
    return variables


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`command` in `folder` and its `environment`."""
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def commit(folder: Path, tag: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", tag)
    run(folder, "git", "tag", tag)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the commits `empty` (no pipeline yet), `slow` and `fast` (another learning rate)."""
    folder = tmp_path_factory.mktemp("review") / "origin"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "config", "core.check_update", "false")
    commit(folder, "empty")
    for name, text in {"dvc.yaml": PIPELINE, "train.py": TRAIN, "params.yaml": PARAMS}.items():
        folder.joinpath(name).write_text(text)
    run(folder, "dvc", "repro", "--quiet")
    commit(folder, "slow")
    folder.joinpath("params.yaml").write_text(PARAMS.replace("0.25", "0.5"))
    run(folder, "dvc", "repro", "--quiet")
    commit(folder, "fast")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    run(tmp_path, "git", "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"


@pytest.fixture
def parts(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """Loads the script, whose functions make the parts of a comment, in `clone`; anew, since it keeps what it read."""
    for name, value in environment(clone).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])

    def load() -> ModuleType:
        for name in [name for name in sys.modules if name.partition(".")[0] == "review"]:
            monkeypatch.delitem(sys.modules, name)
        loader = SourceFileLoader("review_comment", str(SCRIPT))
        module = module_from_spec(spec_from_loader(loader.name, loader))
        loader.exec_module(module)
        return module

    return load


def comment(folder: Path, base: str) -> dict[str, str]:
    """The comment's sections by their titles; the first is named after the base."""
    done = run(folder, str(SCRIPT), base)
    assert done.stderr == ""
    return by_title(done.stdout)


def by_title(text: str) -> dict[str, str]:
    sections = [section.partition("\n\n") for section in f"\n{text}".split("\n#")[1:]]
    return {title.lstrip("# "): body.strip() for title, _, body in sections}


def failure(folder: Path, *arguments: str) -> str:
    """The one line on stderr."""
    done = run(folder, str(SCRIPT), *arguments, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("review-comment: ").strip()


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_the_comment_has_what_changed_and_only_that(clone: Path) -> None:
    sections = comment(clone, "slow")
    assert list(sections) == [
        "Compared with `slow`", "Parameters", "Metrics", "Plots, pictures and other outputs", "Made by"
    ]  # fmt: skip
    assert sections["Compared with `slow`"].startswith("`dvc.lock` is up to date: ")
    header, _, *rows = cells(sections["Metrics"])
    assert header == ["path", "name", "before", "now", "change"]
    assert rows == [["`reports/metrics.json`", "`accuracy`", "0.75", "0.5", "-0.25"]]
    header, _, *rows = cells(sections["Parameters"])
    assert header == ["path", "name", "before", "now"]
    assert rows == [["`params.yaml`", "`train.lr`", "0.25", "0.5"]]
    assert sections["Plots, pictures and other outputs"].splitlines() == [
        "- `reports/loss.csv` changed",
        "- `reports/map.png` changed",
        "",
        "Side by side: `dvc plots diff slow --open`",
    ]


def test_a_comparison_without_a_difference_says_so(clone: Path) -> None:
    sections = comment(clone, "fast")
    assert sections.pop("Compared with `fast`").startswith("`dvc.lock` is up to date: ")
    assert sections == {
        "Metrics": "No metrics differ from `fast`.",
        "Parameters": "No params differ from `fast`.",
        "Plots, pictures and other outputs": "None differ from `fast`.",
        "Made by": UNRECORDED,
    }


def test_a_base_without_a_pipeline_makes_everything_new(clone: Path) -> None:
    sections = comment(clone, "empty")
    assert cells(sections["Metrics"])[2] == ["`reports/metrics.json`", "`accuracy`", "-", "0.5", "-"]
    assert sections["Plots, pictures and other outputs"].splitlines()[:4] == [
        f"- `{path}` is new" for path in ("images.txt", "reports/loss.csv", "reports/map.png", "reports/views.png")
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("params.yaml", "0.5", "0.125", "train"),
        ("params.yaml", "seed: 0", "seed: 1", "prepare"),
        ("reports/metrics.json", "0.5", "0.99", "train"),
    ],
)
def test_results_of_other_code_or_parameters_are_called_out_of_date(
    clone: Path, parts: Callable[[], ModuleType], file: str, old: str, new: str, stage: str
) -> None:
    path = clone / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    stale = parts().up_to_date()
    assert stale.startswith(f"**`dvc.lock` is out of date:** `{stage}` would run again, ")


def test_what_made_the_results_is_told_where_it_is_known_of_these(clone: Path, parts: Callable[[], ModuleType]) -> None:
    locked = YAML(typ="safe").load(clone / "dvc.lock")["stages"]["train"]["outs"]
    record = {
        "outs": {out["path"]: out["md5"] for out in locked},
        "versions": {"numpy": "2.4", "torch": "2.14"},
        "device": "cpu",
        "instructions": "held",
        "threads": 1,
        "processes_from_step": {"0": 2, "70": 1},
    }
    file = clone / "reports" / "train" / "run.json"
    file.parent.mkdir()
    file.write_text(json.dumps(record))
    words = "- `train`: `cpu (instructions: held, processes: 2, then 1, threads: 1), numpy 2.4, torch 2.14`"
    assert parts().makers() == words
    machine = clone / "runs" / "exp-1" / "train" / "machine.json"
    machine.parent.mkdir(parents=True)
    for outs, time in ((record["outs"], ["- Time, as recorded here: `train` 59 s on `EPYC`"]), ({}, [])):
        machine.write_text(json.dumps({"outs": outs, "seconds": 58.7, "cpu": "EPYC"}))
        assert parts().makers().splitlines() == [words, *time]
    file.write_text(json.dumps(record | {"outs": record["outs"] | {"reports/map.png": "0" * 32}}))
    assert parts().makers() == UNRECORDED
    file.write_text('{"outs": []}')
    assert parts().makers() == UNRECORDED


@pytest.mark.parametrize("unbuffered", [False, True])
def test_it_ends_without_a_word_where_nobody_reads_on(unbuffered: bool, clone: Path) -> None:
    done = unread(sys.executable, str(SCRIPT), "fast", folder=clone, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_metrics_that_cannot_be_read_are_mentioned(clone: Path, parts: Callable[[], ModuleType]) -> None:
    clone.joinpath("reports/metrics.json").unlink()
    metrics = parts().table("metrics", "slow").split("\n\n")
    assert cells(metrics[0])[2] == ["`reports/metrics.json`", "`accuracy`", "0.75", "-", "-"]
    assert metrics[1:] == ["> `DVC failed to load some metrics for following revisions: 'workspace'.`"]


def test_a_long_table_is_cut(clone: Path, parts: Callable[[], ModuleType]) -> None:
    clone.joinpath("reports/metrics.json").write_text(json.dumps({f"class {i}": i for i in range(150)}))
    summary, table, end, rest = parts().table("metrics", "slow").split("\n\n")
    assert (summary, end) == ("<details><summary>100 metrics</summary>", "</details>")
    assert len(table.splitlines()) == 2 + 100
    assert rest == "51 more rows: `dvc metrics diff slow`"


def test_of_many_metrics_those_that_are_looked_at_first_are_not_folded(
    clone: Path, parts: Callable[[], ModuleType]
) -> None:
    file = clone / "reports/linear_eval/metrics.json"
    clone.joinpath("dvc.yaml").write_text(PIPELINE + "metrics:\n- reports/linear_eval/metrics.json\n")
    file.parent.mkdir()
    top1 = {name: {"top1": 98.0} for name in ("untrained", "augmented", "pretrained")}
    for others in (10, 9):
        file.write_text(json.dumps(top1 | {f"class {i}": i for i in range(others - 1)}))  # and the accuracy
        shown, *folded = parts().table("metrics", "slow").split("\n\n")
        names = [row[1] for row in cells(shown)[2:]]
        assert names[:2] == ["`pretrained.top1`", "`augmented.top1`"]
        assert len(names) == (2 if others == 10 else 12)
        assert len(folded) == (3 if others == 10 else 0)
    assert names[-1] == "`accuracy`"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("dvc.yaml", "stages:", "stages: [", "'./dvc.yaml' is invalid. "),
        ("dvc.yaml", "cmd: python", "command: python", "'./dvc.yaml' validation failed: 2 errors. extra keys not"),
        ("params.yaml", "lr: ", "lr: [", "ERROR: unable to read: 'params.yaml', YAML file structure is corrupted"),
    ],
)
def test_an_invalid_pipeline_ends_in_one_line(clone: Path, file: str, old: str, new: str, message: str) -> None:
    path = clone / file
    path.write_text(path.read_text().replace(old, new))
    assert failure(clone, "slow").startswith(message)


def test_an_unknown_base_ends_in_one_line(clone: Path) -> None:
    for base in ("nowhere", ""):
        assert failure(clone, base).startswith(f"there is no branch, tag or commit '{base}' here; ")
    done = run(clone, str(SCRIPT), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("the following arguments are required: BASE")


def predict(folder: Path, wrong: set[int], images: int = 60) -> None:
    """Have predictions in `folder`, of which those of `wrong` are."""
    rows = [f"{i % 3},{(i + (i in wrong)) % 3}" for i in range(images)]
    (folder / "reports/linear_eval").mkdir(parents=True, exist_ok=True)
    (folder / "reports/linear_eval/predictions.csv").write_text("\n".join(["actual,predicted", *rows, ""]))


def test_a_verdict_tells_a_gain_from_noise(clone: Path, parts: Callable[[], ModuleType]) -> None:
    assert parts().judge("fast") == ("", False)
    predict(clone, set(range(20)))
    assert parts().judge("fast") == ("None: `there is no table of predictions before`", False)
    commit(clone, "predicted")
    for wrong, row in (
        (
            set(range(8)),
            ["66.67", "86.67", "+20.00 ± 10.12", "12 gained, 0 lost of 60 images (p 0.00049)", "**better**"],
        ),
        (
            set(range(2, 19)),
            ["66.67", "71.67", "+5.00 ± 5.51", "3 gained, 0 lost of 60 images (p 0.25)", "within noise"],
        ),
        (
            set(range(30)),
            ["66.67", "50.00", "-16.67 ± 9.43", "0 gained, 10 lost of 60 images (p 0.002)", "**worse**"],
        ),
    ):
        predict(clone, wrong)
        text, is_worse = parts().judge("predicted")
        assert is_worse == ("worse" in row[-1])
        table, note = text.split("\n\n")
        assert cells(table)[2] == ["linear probe", *row]
        assert "McNemar's exact test" in note
        assert "the noise of the test images alone" in note
    done = run(clone, str(SCRIPT), "predicted", "--fail-on", "worse", check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert by_title(done.stdout)["Verdict"] == text


def test_images_that_cannot_be_compared_have_no_verdict(clone: Path, parts: Callable[[], ModuleType]) -> None:
    predict(clone, set(range(20)))
    commit(clone, "predicted")
    predict(clone, set(), images=50)
    assert parts().judge("predicted") == ("None: `the test images are not the same (60 before, 50 now)`", True)
    (clone / "reports/linear_eval/predictions.csv").write_text("actual,predicted\n,\n")  # of images without labels
    assert parts().judge("predicted") == ("None: `the test images have no labels now`", True)
    assert run(clone, str(SCRIPT), "predicted", "--fail-on", "worse", check=False).returncode == 2
    commit(clone, "unlabelled")
    assert parts().judge("unlabelled") == ("None: `the test images have no labels before and now`", False)
    run(clone, str(SCRIPT), "unlabelled", "--fail-on", "worse")


@pytest.mark.parametrize("side", ["base", "workspace"])
def test_fail_on_worse_fails_where_a_side_has_results_of_another_encoder(
    side: str, clone: Path, parts: Callable[[], ModuleType]
) -> None:
    predict(clone, set(range(20)))
    commit(clone, "predicted")
    assert not parts().judge("predicted")[1]
    lock = YAML(typ="safe").load(clone / "dvc.lock")
    [out, *_] = lock["stages"]["train"]["outs"]
    fresh = json.dumps({**lock, "stages": lock["stages"] | {"linear_eval": {"deps": [out]}}})
    stale = json.dumps({**lock, "stages": lock["stages"] | {"linear_eval": {"deps": [{**out, "md5": "of another"}]}}})
    (clone / "dvc.lock").write_text(stale if side == "base" else fresh)
    commit(clone, "locked")
    (clone / "dvc.lock").write_text(stale if side == "workspace" else fresh)
    assert parts().judge("locked")[1]
    (clone / "dvc.lock").write_text(fresh)
    assert parts().judge("locked")[1] == (side == "base")


def test_a_comment_judges_the_mean_over_classes_where_a_class_is_rare(
    clone: Path, parts: Callable[[], ModuleType]
) -> None:
    """Most images are gained, but those of the rare class are lost."""
    actual = [0] * 200 + [1] * 40
    folder = clone / "reports/linear_eval"
    folder.mkdir(parents=True)
    for name, guesses in (("rare", [1] * 60 + [0] * 140 + [1] * 40), ("", [0] * 200 + [1] * 10 + [0] * 30)):
        rows = (f"{label},{guess}" for label, guess in zip(actual, guesses, strict=True))
        (folder / "predictions.csv").write_text("\n".join(["actual,predicted", *rows]))
        if name:
            commit(clone, name)
    text, is_worse = parts().judge("rare")
    found = {row[0]: row[1:] for row in cells(text.partition("\n\n")[0])}
    assert is_worse
    assert found["linear probe"][-1] == "**better**"
    assert found["linear probe, mean over classes"] == [
        "85.00", "62.50", "-22.50 ± 15.20", "240 images of 2 classes", "**worse**",
    ]  # fmt: skip
    assert "Means over the classes: McNemar's test, each image weighed by the size of its class." in text


def test_any_accuracy_may_be_worse(clone: Path, parts: Callable[[], ModuleType]) -> None:
    """The probe stays, and kNN falls by more than 60 images of their own explain."""
    predict(clone, set(range(20)))
    for stage, values in (("convert", {"test": {"images": 60}}), ("embed", {"knn_top1": 95.0})):
        (clone / f"reports/{stage}").mkdir()
        (clone / f"reports/{stage}/metrics.json").write_text(json.dumps(values))
    commit(clone, "with-knn")
    (clone / "reports/embed/metrics.json").write_text(json.dumps({"knn_top1": 55.0}))
    table, is_worse = parts().judge("with-knn")
    assert is_worse
    assert ["kNN", "95.00", "55.00", "-40.00 ± 13.74", "60 images", "**worse**"] in cells(table)


@pytest.mark.parametrize("spoil", ["missing", "renamed", "cut", "damaged"])
def test_a_probe_that_cannot_be_compared_any_more_is_no_pass(
    spoil: str, clone: Path, parts: Callable[[], ModuleType]
) -> None:
    predict(clone, set(range(20)))
    commit(clone, "predicted")
    file = clone / "reports/linear_eval/predictions.csv"
    text = file.read_text()
    file.unlink()
    if spoil != "missing":
        file.write_bytes(
            {"renamed": text.replace("predicted", "guessed"), "cut": text[:40], "damaged": "actual\r\0\udcff"}[
                spoil
            ].encode(errors="surrogateescape")
        )
    words, is_worse = parts().judge("predicted")
    assert words.startswith("None: `")
    assert is_worse
    assert not parts().judge("fast")[1]  # which has none


@pytest.mark.parametrize("lock", ["[", "stages: []", "stages: {a: 1}", "stages: {a: {outs: [{md5: x}]}}"])
def test_a_lock_that_is_damaged_ends_in_one_line(lock: str, clone: Path, parts: Callable[[], ModuleType]) -> None:
    (clone / "dvc.lock").write_text(lock)
    run(clone, "git", "commit", "--quiet", "--all", "--message", "damaged")
    run(clone, "git", "checkout", "--quiet", "fast", "--", "dvc.lock")
    with pytest.raises(SystemExit, match=r"^review-comment: a dvc\.lock is damaged \(\w+\)$"):
        parts().outputs("HEAD", "")
    if lock == "[":
        assert failure(clone, "HEAD").startswith("a dvc.lock is damaged (")


def test_nothing_that_an_author_writes_is_markup(clone: Path) -> None:
    """A comment is posted with a token."""
    evil = "`x`|y<img src=//e>\n# @admins [a](//b)"
    clone.joinpath("params.yaml").write_text(json.dumps({"prepare": {"seed": 0, evil: evil}, "train": {"lr": 0.5}}))
    clone.joinpath("reports/metrics.json").write_text(json.dumps({evil: 1.0}))
    done = run(clone, str(SCRIPT), "fast").stdout
    quoted = [line for line in done.splitlines() if "admins" in line]
    assert quoted
    for line in quoted:
        outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", line)  # without spans of code
        assert not set("<#@[").intersection(outside)
        bars = len(re.findall(r"(?<!\\)\|", line))
        assert bars == (6 if "metrics.json" in line else 5)


def test_no_character_turns_the_direction_of_writing() -> None:
    assert markdown.code("is\u202e not\u2066\x1b\n worse") == "`is not worse`"


def test_a_comment_is_never_longer_than_github_takes() -> None:
    text = "\n".join(f"line {i}" for i in range(20_000))
    assert len(markdown.cut(text)) <= 65_536
    assert markdown.cut(text).startswith("line 0\nline 1\n")
    assert markdown.cut("short") == "short"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (0, 5), (9, 1), (30, 20), (700, 500)])
def test_p_values_are_those_of_the_binomial_test(gained: int, lost: int) -> None:
    found = Verdict("x", 5000, 4000, 4000 + gained - lost, gained, lost)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p_value == pytest.approx(expected)
    before, after = np.zeros(5000), np.zeros(5000)
    before[:lost], after[lost : lost + gained] = 1, 1
    change = 100 * (after - before)
    assert found.difference == pytest.approx(change.mean())
    assert found.margin == pytest.approx(1.959964 * change.std() / 5000**0.5)


@pytest.mark.parametrize(("gained", "lost"), [(9, 1), (30, 20), (12, 60), (700, 500)])
def test_the_margin_is_that_of_a_paired_bootstrap(gained: int, lost: int) -> None:
    found = Verdict("x", 2000, 1500, 1500 + gained - lost, gained, lost)
    kinds = [gained / 2000, lost / 2000, 1 - (gained + lost) / 2000]
    counts = np.random.default_rng(0).multinomial(2000, kinds, 20_000)  # of images drawn with replacement
    drawn = np.percentile(100 * (counts[:, 0] - counts[:, 1]) / 2000, [2.5, 97.5])
    tolerance = max(100 / 2000, found.margin / 30)  # an image, or what the draws leave open
    assert drawn == pytest.approx([found.difference - found.margin, found.difference + found.margin], abs=tolerance)


def test_no_script_of_the_workflow_has_anything_pasted_into_it() -> None:
    """A branch's name or a title can be shell code; it may reach a script through the environment alone."""
    workflow = YAML(typ="safe", pure=True).load(ROOT / ".github" / "workflows" / "ci.yml")
    assert "pull_request_target" not in workflow["on"]
    scripts = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(scripts) == 8
    assert not [script for script in scripts if "${{" in script]
