"""Which changes of accuracies count: against textbook formulas, by scipy, and over seeds that were recorded."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.pipeline.test_review import ROOT, commit, predict, run

METRIC = "linear_eval.pretrained.top1"


@pytest.fixture
def review(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package in scripts/."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "review"]:
        monkeypatch.delitem(sys.modules, name)
    import review
    import review.judgement
    import review.results
    import review.revision
    import review.seeds

    module: ModuleType = review
    return module


def sample(review: ModuleType, values: list[float]) -> Any:
    return review.seeds.Sample(np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0, len(values))


@pytest.mark.parametrize("after", [[93.0, 94.0, 95.5], [97.1, 97.5, 98.4, 96.0], [99.0, 99.1]])
def test_two_groups_of_seeds_are_compared_by_welchs_t(after: list[float], review: ModuleType) -> None:
    before = [96.0, 97.0, 95.0]
    found = review.judgement._by_seeds(METRIC, sample(review, before), sample(review, after))
    expected = stats.ttest_ind(after, before, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.after - found.before == pytest.approx((low + high) / 2)
    # whole degrees of freedom, rounded down, make it wider
    assert (high - low) / 2 <= found.margin < 1.5 * (high - low)
    assert (found.word != "within noise") == (abs(found.after - found.before) > found.margin)
    assert found.basis == f"mean of 3 seeds and mean of {len(after)} seeds"


@pytest.mark.parametrize("alone", ["before", "after"])
@pytest.mark.parametrize(("value", "word"), [(95.0, "within noise"), (99.9, "better"), (90.0, "worse")])
def test_one_run_is_compared_with_where_one_more_would_lie(
    alone: str, value: float, word: str, review: ModuleType
) -> None:
    group = [96.0, 97.0, 95.0, 96.5]
    samples = [sample(review, group), sample(review, [value])]
    if alone == "before":
        samples.reverse()
        word = {"better": "worse", "worse": "better"}.get(word, word)
    found = review.judgement._by_seeds(METRIC, *samples)
    expected = stats.t.ppf(0.975, 3) * np.std(group, ddof=1) * np.sqrt(1 + 1 / 4)
    assert found.margin == pytest.approx(expected, rel=1e-3)
    assert found.word == word


def test_students_quantiles_are_those_of_scipy(review: ModuleType) -> None:
    quantiles = review.judgement._STUDENT
    assert quantiles == pytest.approx(stats.t.ppf(0.975, np.arange(1, len(quantiles) + 1)), abs=6e-4)


def test_images_that_nobody_paired_are_two_binomials(review: ModuleType) -> None:
    found = review.judgement._by_count("embed.knn_top1", 90.0, 80.0, 400)
    expected = 100 * stats.norm.ppf(0.975) * np.sqrt(0.9 * 0.1 / 400 + 0.8 * 0.2 / 400)
    assert (found.margin, found.word) == (pytest.approx(expected, rel=1e-5), "worse")


@pytest.mark.parametrize(
    ("metric", "split"),
    [
        (METRIC, "test"),
        ("embed.knn_top1", "test"),
        ("finetune.1_percent.finetuned.top1", "test"),
        ("finetune.12.5_percent.finetuned.top1", "test"),
        ("finetune.1e-05_percent.finetuned.top1", "test"),
        ("finetune.listed.finetuned.top1", "test"),
        ("finetune.1_percent.from_scratch.top1", None),
        ("evaluate.knn.top1_k20", "test"),
        ("pretrain.val_knn_top1", "val"),
        ("linear_eval.untrained.top1", None),
        ("evaluate.knn.top1_k20_low", None),
        ("pretrain.loss", None),
    ],
)
def test_accuracies_of_the_encoder_are_judged(metric: str, split: str | None, review: ModuleType) -> None:
    assert review.judgement.split(metric) == split


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A commit whose reports/seeds.json is about its result."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "git", "init", "--quiet")
    (folder / "params.yaml").write_text("pretrain:\n  seed: 0\n")
    have(folder, 96.0, 10)
    metrics = {METRIC: {"mean": 95.0, "sd": 2.0, "seeds": 3, "commit": 96.0}}
    (folder / "reports/seeds.json").write_text(json.dumps({"commit": "x", "seeds": 3, "metrics": metrics}))
    commit(folder, "base")
    return folder


def have(folder: Path, top1: float, wrong: int) -> None:
    predict(folder, set(range(wrong)))
    measure(folder, "linear_eval", {"pretrained": {"top1": top1}})


def measure(folder: Path, stage: str, metrics: Mapping[str, object]) -> None:
    file = folder / f"reports/{stage}/metrics.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(metrics))


def amend(repository: Path) -> None:
    """Take everything in the workspace into the commit `base`."""
    run(repository, "git", "add", "--all")
    run(repository, "git", "commit", "--quiet", "--amend", "--message", "base")
    run(repository, "git", "tag", "--force", "base")


def judged(review: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.chdir(repository)
    before, after = review.revision.resolve("base"), review.revision.resolve("workspace")
    samples = [review.seeds.samples(side, []) for side in (before, after)]
    return [(item.basis.partition(" of 60 ")[0], item.word) for item in review.judgement.judge(before, after, *samples)]


def test_recorded_seeds_of_the_base_tell_what_is_noise(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the images alone would call it worse; the workspace has results that the file is not about."""
    have(repository, 88.0, 20)
    assert judged(review, repository, monkeypatch) == [("mean of 3 seeds and one run", "within noise")]
    (repository / "reports/seeds.json").unlink()
    assert judged(review, repository, monkeypatch) == [("mean of 3 seeds and one run", "within noise")]


def test_results_of_an_earlier_encoder_are_not_measured(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc exp run` of pretrain alone: the other stages have results, but of the encoder before."""

    def lock(encoder: str, read: str, features: str) -> None:
        """`read` is the encoder that embed read."""
        pretrain = {"outs": [{"path": "encoder", "md5": encoder}], "params": {"params.yaml": {"pretrain": {"seed": 0}}}}
        embed = {"deps": [{"path": "encoder", "md5": read}], "outs": [{"path": "features", "md5": features}]}
        linear_eval = {"deps": [{"path": "features", "md5": features}]}
        stages = {"pretrain": pretrain, "embed": embed, "linear_eval": linear_eval}
        (repository / "dvc.lock").write_text(json.dumps({"stages": stages}))

    measure(repository, "convert", {"val": {"images": 100}})
    measure(repository, "pretrain", {"val_knn_top1": 95.0})
    lock("a", "a", "of a")
    (repository / "reports/seeds.json").unlink()
    amend(repository)
    measure(repository, "pretrain", {"val_knn_top1": 80.0})
    lock("b", "a", "of a")
    assert judged(review, repository, monkeypatch) == [("100 images", "worse"), ("", "not measured")]
    (repository / "params.yaml").write_text("pretrain:\n  seed: 1\n")
    assert judged(review, repository, monkeypatch) == [("", "not measured")] * 2
    (repository / "params.yaml").write_text("pretrain:\n  seed: 0\n")
    lock("b", "b", "of b")
    have(repository, 76.0, 20)
    assert judged(review, repository, monkeypatch)[1] == ("100 images", "worse")
    assert judged(review, repository, monkeypatch)[0][0].startswith("0 gained, 10 lost")
    lock("b", "a", "of a")
    amend(repository)
    lock("b", "b", "of b")
    assert judged(review, repository, monkeypatch) == [("", "unchanged"), ("", "not measured")]


def test_the_same_results_are_unchanged(repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run(repository, "git", "commit", "--quiet", "--allow-empty", "--message", "same")
    run(repository, "git", "tag", "same")
    monkeypatch.chdir(repository)
    sides = [review.revision.resolve(name) for name in ("base", "same")]
    samples = [review.seeds.samples(side, []) for side in sides]
    assert samples[0] == samples[1] != {}
    for of_sides in (samples, [samples[0], {}], [{}, samples[0]], [{}, {}]):
        (found,) = review.judgement.judge(*sides, *of_sides)
        assert (found.cells, found.word, found.basis) == (["96.00", "96.00", "="], "unchanged", "")
    (found,) = review.judgement.judge(*sides, samples[0], {METRIC: review.seeds.Sample(80.0, 1.0, 3)})
    assert found.word == "worse"  # by the seeds of both


def test_one_accuracy_of_other_images_is_not_unchanged(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "reports/seeds.json").unlink()
    commit(repository, "one")
    have(repository, 96.0, 0)
    predict(repository, {0, *range(30, 39)})
    monkeypatch.chdir(repository)
    (found,) = review.judgement.judge(*(review.revision.resolve(name) for name in ("one", "workspace")), {}, {})
    assert found.basis.startswith("9 gained, 9 lost of 60 images")


def test_seeds_of_the_pretraining_are_no_noise_of_one_encoder(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(encoder: str) -> None:
        outs = [{"path": "models/encoder.safetensors", "md5": encoder}]
        (repository / "dvc.lock").write_text(json.dumps({"stages": {"pretrain": {"deps": [], "outs": outs}}}))

    lock("a")
    commit(repository, "locked")
    monkeypatch.chdir(repository)
    sides = [review.revision.resolve(name) for name in ("locked", "workspace")]
    have(repository, 88.0, 20)
    for encoder, basis in (("a", "0 gained, 10 lost of 60 images"), ("b", "mean of 3 seeds and one run")):
        lock(encoder)
        (found,) = review.judgement.judge(*sides, {METRIC: review.seeds.Sample(95.0, 2.0, 3)}, {})
        assert found.basis.startswith(basis)


def test_what_one_encoder_came_to_twice_is_unchanged_whatever_is_known_of_its_seeds(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after scripts/seeds, with other seeds than before."""
    outs = [{"path": "models/encoder.safetensors", "md5": "a"}]
    (repository / "dvc.lock").write_text(json.dumps({"stages": {"pretrain": {"deps": [], "outs": outs}}}))
    commit(repository, "locked")
    monkeypatch.chdir(repository)
    sides = [review.revision.resolve(name) for name in ("locked", "workspace")]
    samples = [{METRIC: review.seeds.Sample(95.0, 2.0, runs)} for runs in (3, 2)]
    (found,) = review.judgement.judge(*sides, *samples)
    assert (found.cells, found.word) == (["96.00", "96.00", "="], "unchanged")


def test_two_runs_that_differ_in_seeds_alone_are_judged_by_the_spread_of_all(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the images alone would call one worse."""
    have(repository, 88.0, 20)
    monkeypatch.chdir(repository)
    sides = [review.revision.resolve(name) for name in ("base", "workspace")]
    for sd, word in ((2.0, "within noise"), (1.0, "worse")):
        group = {METRIC: review.seeds.Sample(92.0, sd, 3)}
        (found,) = review.judgement.judge(*sides, group, group)
        assert (found.before, found.after, found.basis, found.word) == (96.0, 88.0, "3 seeds, all else equal", word)
        assert found.margin == pytest.approx(stats.t.ppf(0.975, 2) * sd * math.sqrt(2), abs=5e-3)


ODD = [
    {"mean": 95.0, "sd": 2.0, "seeds": 1, "commit": 96.0},
    {"mean": 95.0, "sd": float("nan"), "seeds": 3, "commit": 96.0},
    {"mean": 95.0, "sd": float("inf"), "seeds": 3, "commit": 96.0},
    {"mean": 95.0, "sd": -1.0, "seeds": 3, "commit": 96.0},
    {"mean": 950.0, "sd": 2.0, "seeds": 3, "commit": 96.0},
    {"mean": 10**400, "sd": 2.0, "seeds": 3, "commit": 96.0},
    {"mean": 95.0, "sd": 2.0, "seeds": float("inf"), "commit": 96.0},
    {"mean": 95.0, "sd": 0.0, "seeds": 3, "commit": 96.0},
]


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"metrics": {"a": 1}}', None, *(json.dumps({"metrics": {METRIC: odd}}) for odd in ODD)]
)
def test_a_record_of_other_results_or_a_damaged_one_is_left_aside(
    content: str | None, repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = repository / "reports/seeds.json"
    file.write_text(file.read_text().replace("96.0", "96.5") if content is None else content)
    amend(repository)
    have(repository, 88.0, 20)
    assert judged(review, repository, monkeypatch) == [("0 gained, 10 lost", "worse")]


def test_what_is_trained_on_is_not_judged(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(repository, "convert", {"val": {"images": 100}})
    measure(repository, "pretrain", {"val_knn_top1": 80.0})
    amend(repository)
    measure(repository, "pretrain", {"val_knn_top1": 100.0})
    assert ("100 images", "better") in judged(review, repository, monkeypatch)
    (repository / "params.yaml").write_text("pretrain:\n  seed: 0\n  split: all\n")
    assert ("100 images", "better") not in judged(review, repository, monkeypatch)


def test_what_is_no_longer_measured_is_said(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(repository, "embed", {"knn_top1": 90.0})
    amend(repository)
    (repository / "reports/embed/metrics.json").unlink()
    assert judged(review, repository, monkeypatch)[-1] == ("", "not measured")


@pytest.mark.parametrize(
    ("neighbors", "found"), [(10, ("embed.neighbors was 20, is 10", "not compared")), (20, ("60 images", "worse"))]
)
def test_accuracies_of_other_neighbors_are_not_compared(
    neighbors: int, found: tuple[str, str], repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(repository, "convert", {"test": {"images": 60}})
    measure(repository, "embed", {"knn_top1": 90.0})
    voting = "pretrain:\n  seed: 0\nembed:\n  neighbors: {}\n  temperature: 0.1\n"
    (repository / "params.yaml").write_text(voting.format(20))
    amend(repository)
    (repository / "params.yaml").write_text(voting.format(neighbors))
    measure(repository, "embed", {"knn_top1": 50.0})
    assert judged(review, repository, monkeypatch)[-1] == found


@pytest.mark.parametrize(
    ("neighbors", "temperature", "listed"),
    [(20, 0.1, [5, 125]), (5, 0.1, [20, 125]), (20, 0.5, [5, 20, 125]), (20, "null", [5, 20, 125])],
)
def test_an_accuracy_that_two_stages_measure_is_judged_once_and_numbers_are_in_order(
    neighbors: int,
    temperature: float | str,
    listed: list[int],
    repository: Path,
    review: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure(repository, "embed", {"knn_top1": 90.0, "knn_neighbors": neighbors})
    measure(repository, "evaluate", {"knn": {f"top1_k{k}": 90.0 for k in (125, 20, 5)}})
    (repository / "params.yaml").write_text(
        f"pretrain: {{seed: 0}}\nembed: {{temperature: {0.1 if temperature != 'null' else 'null'}}}\n"
        f"evaluations: {{knn: {{temperature: {temperature}}}}}\n"
    )
    amend(repository)
    monkeypatch.chdir(repository)
    before, after = review.revision.resolve("base"), review.revision.resolve("workspace")
    metrics = [item.metric for item in review.judgement.judge(before, after, {}, {})]
    assert metrics == [METRIC, "embed.knn_top1", *(f"evaluate.knn.top1_k{k}" for k in listed)]


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ({"images": 60}, ("60 images", "better")),
        ({"images": 600000}, ("convert.test.images was 60, is 600000", "not compared")),
        ({}, ("convert.test.images is unknown", "not compared")),
    ],
)
def test_accuracies_of_unequal_numbers_of_images_are_not_compared(
    images: dict[str, int],
    found: tuple[str, str],
    repository: Path,
    review: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure(repository, "convert", {"test": {"images": 60}})
    measure(repository, "embed", {"knn_top1": 50.0})
    amend(repository)
    measure(repository, "convert", {"test": images})
    measure(repository, "embed", {"knn_top1": 90.0})
    assert judged(review, repository, monkeypatch)[-1] == found
    before, after = review.revision.resolve("base"), review.revision.resolve("workspace")
    of_seeds = {"embed.knn_top1": review.seeds.Sample(50.0, 1.0, 3)}  # which are of as many images as the base
    item = review.judgement.judge(before, after, of_seeds, {})[-1]
    assert (item.word == "not compared") == ("was 60, is 6" in found[0])
    assert (review.judgement.explained([item]) == "") == (item.word == "not compared")


@pytest.mark.parametrize("accuracy", [150.0, -1.0, 1e299])
def test_what_is_no_accuracy_is_left_out_alone(
    accuracy: float, repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(repository, "convert", {"test": {"images": 60}})
    measure(repository, "embed", {"knn_top1": accuracy})
    amend(repository)
    assert judged(review, repository, monkeypatch) == [("", "unchanged")]


def test_results_of_other_parameters_are_no_run_of_their_own(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    lock = {"stages": {"pretrain": {"params": {"params.yaml": {"pretrain": {"seed": 0}}}, "outs": []}}}
    (repository / "dvc.lock").write_text(json.dumps(lock))
    commit(repository, "own")
    assert review.results.agree(review.revision.resolve("own"))
    (repository / "params.yaml").write_text("pretrain:\n  seed: 1\n")
    commit(repository, "edited")
    assert not review.results.agree(review.revision.resolve("edited"))


def test_runs_on_other_data_are_no_other_seeds(
    repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    commits = []
    for seed, (md5, code) in enumerate([("aaaa.dir", "x"), ("bbbb.dir", "x"), ("aaaa.dir", "y")]):
        deps = [{"path": "pictures", "md5": md5}, {"path": "src/simclr", "md5": code}, {"path": "data/raw", "md5": md5}]
        stages = {"fetch": {"deps": deps, "outs": [{"path": "data/raw", "md5": md5}]}}
        (repository / "dvc.lock").write_text(json.dumps({"stages": stages}))
        (repository / "params.yaml").write_text(f"pretrain:\n  seed: {seed}\n")
        commit(repository, f"run-{seed}")
        commits.append(subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip())
    first, other, same = map(review.seeds.but_for_seeds, commits)
    assert first == same != other


def unequal(rng: np.random.Generator, sizes: tuple[int, ...], right: float) -> tuple[list[int], list[int]]:
    """Labels, and predictions of which a share is right."""
    actual = [label for label, size in enumerate(sizes) for _ in range(size)]
    return actual, [label if rng.random() < right else (label + 1) % len(sizes) for label in actual]


def table(actual: list[int], predicted: list[int]) -> str:
    return "\n".join(["actual,predicted", *(f"{a},{p}" for a, p in zip(actual, predicted, strict=True))])


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_means_over_classes_of_different_sizes_are_judged_by_what_chance_does(share: float, review: ModuleType) -> None:
    """Chance decides of each changed image which of both has it right."""
    rng = np.random.default_rng(0)
    sizes = (400, 150, 80)
    actual, before = unequal(rng, sizes, 0.7)
    after = [label if rng.random() < share else guess for guess, label in zip(before, actual, strict=True)]
    [found] = review.verdict.over_classes(table(actual, before), table(actual, after))
    assert (found.metric, found.images) == ("linear_eval.pretrained.balanced_accuracy", 630)
    labels = np.array(actual)
    right = [np.array(guesses) == labels for guesses in (before, after)]
    for figure, hits in zip((found.before, found.after), right, strict=True):
        assert figure == pytest.approx(100 * np.mean([hits[labels == label].mean() for label in range(3)]))
    weights = (right[0] != right[1]) / np.array(sizes)[labels] / 3
    by_chance = np.abs(100 * (rng.choice([-1, 1], (20_000, 630)) @ weights))
    largest = np.quantile(by_chance, 0.95)
    assert largest < found.margin < 1.05 * largest + 100 * weights.max()
    [same] = review.verdict.over_classes(table(actual, before), table(actual, before))
    assert (same.after - same.before, same.margin) == (0, 0)


@pytest.mark.parametrize("others", [1, 5, 20])
def test_one_image_of_a_class_of_its_own_decides_nothing(others: int, review: ModuleType) -> None:
    actual = [*(label for label in range(others) for _ in range(40)), others]
    for before, after in (([*actual[:-1], 0], actual), (actual, [*actual[:-1], 0])):
        [found] = review.verdict.over_classes(table(actual, before), table(actual, after))
        assert abs(found.after - found.before) == pytest.approx(100 / (others + 1))
        assert review.judgement._by_class(found).word == "within noise"


def test_classes_of_about_the_same_size_have_no_mean_of_their_own(review: ModuleType) -> None:
    for sizes, count in (((19, 10), 0), ((20, 10), 1)):
        actual, before = unequal(np.random.default_rng(0), sizes, 0.5)
        assert len(review.verdict.over_classes(table(actual, before), table(actual, actual))) == count
    with pytest.raises(ValueError, match="not the same"):
        review.verdict.over_classes(table(actual, before), table(actual[:-1], before[:-1]))


def test_both_probes_have_a_mean_over_classes(review: ModuleType) -> None:
    rows = "\n".join(["actual,predicted,augmented", "0,0,1", "0,0,0", "1,0,1"])
    found = {item.metric: (item.before, item.after) for item in review.verdict.over_classes(rows, rows)}
    assert found == {
        "linear_eval.pretrained.balanced_accuracy": (50, 50),
        "linear_eval.augmented.balanced_accuracy": (75, 75),
    }


@pytest.mark.parametrize(("rare", "means"), [(10, ["linear_eval.pretrained.balanced_accuracy"]), (20, [])])
def test_seeds_are_recorded_of_what_is_judged(
    rare: int, means: list[str], repository: Path, review: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository / "reports/linear_eval"
    metrics = {"pretrained": {"top1": 90.0, "top5": 99.0, "balanced_accuracy": 80.0}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    actual = [0] * 20 + [1] * rare
    (folder / "predictions.csv").write_text(table(actual, actual))
    monkeypatch.chdir(repository)
    assert review.judgement.judged(review.revision.resolve("workspace")) == [METRIC, *means]
    (folder / "predictions.csv").unlink()
    assert review.judgement.judged(review.revision.resolve("workspace")) == [METRIC]
