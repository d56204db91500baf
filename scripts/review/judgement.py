"""Better, worse or within noise: the accuracies of two revisions, each by the best that is known of its noise.

What is the same is unchanged. Where a side has several seeds, and both have encoders of their own, noise is the spread
of the seeds. Else it is that of the images: of the linear probes image by image, since Git holds their predictions, and
of the others as if each side had images of its own, which takes noise for larger than it is.
"""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from review import headline, results, verdict
from review.revision import Revision
from review.seeds import Sample

_SPLITS = {
    "test": r"linear_eval\.(pretrained|augmented)\.top1|embed\.knn_top1|evaluate\.knn\.top1_k\d+|"
    r"finetune\.(listed|[\w.+-]+_percent)\.finetuned\.top1",
    "val": r"pretrain\.val_(knn|probe)_top1",
}
"""The accuracies that are judged, by the split whose images they are of."""
_VOTES = {"embed.knn_top1": "embed", "pretrain.val_knn_top1": "pretrain.validation"}
"""Accuracies of kNN, by the section of params.yaml that says how its neighbors vote."""
_ENCODER = "models/encoder.safetensors"
_PROBE = "linear_eval"
"""The stage of the predictions."""
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Judgement:
    """An accuracy before and after, in percent: the mean over its seeds, if there are several."""

    metric: str
    before: float
    after: float
    margin: float
    """Half the width of the 95 % interval of the difference, in percentage points."""
    basis: str
    """What noise is known from."""
    word: str

    @property
    def cells(self) -> list[str]:
        if self.word == "not measured":
            return [*("-" if math.isnan(value) else f"{value:.2f}" for value in (self.before, self.after)), "-"]
        if self.word in ("unchanged", "not compared"):
            return [f"{self.before:.2f}", f"{self.after:.2f}", "=" if self.word == "unchanged" else "-"]
        difference = round(self.after - self.before, 2) + 0.0  # never -0.00
        return [f"{self.before:.2f}", f"{self.after:.2f}", f"{difference:+.2f} ± {self.margin:.2f}"]


def split(metric: str) -> str | None:
    """The split whose images a metric is the accuracy of; None for what is not judged."""
    return next((name for name, pattern in _SPLITS.items() if re.fullmatch(pattern, metric)), None)


def judged(revision: Revision) -> list[str]:
    """The metrics of a revision on which there are verdicts."""
    metrics, means = results.metrics(revision), []
    with suppress(ValueError):  # without predictions or labels there are no classes
        means = [item.metric for item in verdict.over_classes(*[_predictions(revision)] * 2)]
    return [metric for metric in metrics if split(metric) or metric in means]


def judge(
    before: Revision, after: Revision, seeds_before: Mapping[str, Sample], seeds_after: Mapping[str, Sample]
) -> list[Judgement]:
    """All accuracies of the one before, and what the other has of them; of the `seeds_*` those that have several.

    Raises:
        ValueError: the predictions of the test images cannot be compared; says why.
    """
    tables = [_predictions(side) for side in (before, after)]
    by_images = {item.metric: _by_images(item) for item in verdict.verdicts(*tables)}
    by_images |= {item.metric: _by_class(item) for item in verdict.over_classes(*tables)}
    outdated_before = results.outdated(before)
    if _PROBE in outdated_before | results.outdated(after):
        by_images = {}
    first, second = results.metrics(before), results.metrics(after)
    encoders = [results.locked(side, "pretrain").get(_ENCODER) for side in (before, after)]
    is_same_encoder = encoders[0] is not None and encoders[0] == encoders[1]  # that of a seed, whichever
    judgements = []
    compared = {*by_images, *_judged_metrics(before, after, first.keys() & second.keys())}
    if "embed.knn_top1" in compared:
        compared -= _names_in_evaluate(before, first) & _names_in_evaluate(after, second)
    for metric in sorted(compared, key=headline.order):
        images = _images(metric, first, second)
        several = [seeds.get(metric) for seeds in (seeds_before, seeds_after)]
        values = [side.get(metric, math.nan) for side in (first, second)]
        one = [Sample(value, 0.0, 1) for value in values]
        samples = [sample or alone for sample, alone in zip(several, one, strict=True)]
        # seeds that all came to the same, on few images, do not tell that there is no noise
        known = any(sample.sd > 0 for sample in samples) and not any(math.isnan(sample.mean) for sample in samples)
        is_one_group = several[0] == several[1]  # two of the runs that differ in seeds alone
        images_changed = metric in by_images and by_images[metric].margin > 0
        are_accuracies = all(0 <= value <= 100 for value in values)
        is_same = are_accuracies and values[0] == values[1] and not images_changed
        if is_same and (is_same_encoder or is_one_group or None in several):
            judgements.append(Judgement(metric, values[0], values[1], 0.0, "", "unchanged"))
        elif are_accuracies and (
            changed := _changed_votes(metric, before, after) or _changed_images(metric, first, second)
        ):
            judgements.append(Judgement(metric, values[0], values[1], 0.0, changed, "not compared"))
        elif known and is_one_group:
            judgements.append(_of_one_group(metric, one[0], one[1], samples[0]))
        elif known and not is_same_encoder:
            judgements.append(_by_seeds(metric, *samples))
        elif metric in by_images:
            judgements.append(by_images[metric])
        elif images and are_accuracies:
            judgements.append(_by_count(metric, values[0], values[1], images))
        elif are_accuracies:
            unknown = f"{_count_of(metric)} is unknown"
            judgements.append(Judgement(metric, values[0], values[1], 0.0, unknown, "not compared"))
    gone = _judged_metrics(before, after, first.keys() - second.keys())
    stale = {item for item in second.keys() - first.keys() if item.partition(".")[0] in outdated_before}
    for metric in sorted((gone | _judged_metrics(before, after, stale)) - compared):
        values = [side.get(metric, math.nan) for side in (first, second)]
        judgements.append(Judgement(metric, values[0], values[1], 0.0, "", "not measured"))
    return judgements


def _predictions(revision: Revision) -> str:
    return (revision.read(verdict.PREDICTIONS) or b"").decode(errors="replace")


def _judged_metrics(before: Revision, after: Revision, metrics: Iterable[str]) -> set[str]:
    """Those of the `metrics` that are judged; none on val where one side has been trained on it."""
    trained_on = any(results.parameters(side).get("pretrain.split") == "all" for side in (before, after))
    return {metric for metric in metrics if split(metric) in ({"test"} if trained_on else {"test", "val"})}


def _names_in_evaluate(revision: Revision, metrics: Mapping[str, float]) -> set[str]:
    """What evaluate calls the kNN accuracy of embed, if it measures the same."""
    parameters = results.parameters(revision)
    temperatures = [parameters.get(name) for name in ("embed.temperature", "evaluations.knn.temperature")]
    if temperatures[0] is None or temperatures[0] != temperatures[1]:
        return set()
    return {f"evaluate.knn.top1_k{metrics.get('embed.knn_neighbors', 0):.0f}"}


def _changed_votes(metric: str, before: Revision, after: Revision) -> str:
    """What differs in how the neighbors of an accuracy of kNN vote, in words; empty for other metrics."""
    if metric not in _VOTES:
        return ""
    keys = [f"{_VOTES[metric]}.{name}" for name in ("neighbors", "temperature")]
    first, second = results.parameters(before), results.parameters(after)
    changed = (key for key in keys if key in first and key in second and first[key] != second[key])
    return "; ".join(f"{key} was {first[key]}, is {second[key]}" for key in changed)


def _images(metric: str, before: Mapping[str, float], after: Mapping[str, float]) -> int:
    """How many images the accuracy is of; 0 where that is not known, or where they are not as many."""
    counts = {values.get(_count_of(metric)) for values in (before, after)}
    return max(0, int(next(iter(counts)) or 0)) if len(counts) == 1 else 0


def _changed_images(metric: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """How many images the accuracy was and is of, in words; empty where that is the same, or not known."""
    first, second = (values.get(_count_of(metric)) for values in (before, after))
    if first is None or second is None or first == second:
        return ""
    return f"{_count_of(metric)} was {first:.12g}, is {second:.12g}"


def _count_of(metric: str) -> str:
    """What the number of images is called that the accuracy is of."""
    return f"convert.{split(metric)}.images"


def _by_images(item: verdict.Verdict) -> Judgement:
    before, after = (100 * right / item.images for right in (item.right_before, item.right_after))
    basis = f"{item.gained} gained, {item.lost} lost of {item.images} images (p {item.p_value:.2g})"
    return Judgement(item.metric, before, after, item.margin, basis, item.word)


def _by_class(item: verdict.OverClasses) -> Judgement:
    basis = f"{item.images} images of {len(item.parts)} classes"
    return _judged(item.metric, item.before, item.after, item.margin, basis)


def _by_count(metric: str, before: float, after: float, images: int) -> Judgement:
    variances = (accuracy * (100 - accuracy) / images for accuracy in (before, after))
    margin = verdict.NORMAL * math.sqrt(sum(variances))
    return _judged(metric, before, after, margin, f"{images} images")


def _by_seeds(metric: str, before: Sample, after: Sample) -> Judgement:
    """By Welch's t of two means; or where a side has one run, by how far one more run of the other would lie from the
    mean of those there are."""
    several = [sample for sample in (before, after) if sample.runs > 1]
    if len(several) == 2:
        shares = [sample.sd**2 / sample.runs for sample in several]
        spread = math.sqrt(sum(shares))
        parts = sum(share**2 / (sample.runs - 1) for share, sample in zip(shares, several, strict=True))
        freedom = sum(shares) ** 2 / parts if parts else 1.0
    else:
        spread = several[0].sd * math.sqrt(1 + 1 / several[0].runs)
        freedom = several[0].runs - 1
    margin = _quantile(freedom) * spread
    return _judged(metric, before.mean, after.mean, margin, f"{_runs(before)} and {_runs(after)}")


def _runs(sample: Sample) -> str:
    return f"mean of {sample.runs} seeds" if sample.runs > 1 else "one run"


def _of_one_group(metric: str, before: Sample, after: Sample, group: Sample) -> Judgement:
    """Two runs that differ in seeds alone, by the spread of all such runs: of two, they are within noise."""
    margin = _quantile(group.runs - 1) * group.sd * math.sqrt(2)
    return _judged(metric, before.mean, after.mean, margin, f"{group.runs} seeds, all else equal")


def _quantile(freedom: float) -> float:
    return _STUDENT[min(len(_STUDENT), int(freedom)) - 1]


def _judged(metric: str, before: float, after: float, margin: float, basis: str) -> Judgement:
    difference = after - before
    word = "within noise" if abs(difference) <= margin else "better" if difference > 0 else "worse"
    return Judgement(metric, before, after, margin, basis, word)


def explained(judgements: list[Judgement]) -> str:
    """What the noise is, in words."""
    judgements = [item for item in judgements if item.word != "not compared"]
    if not judgements:
        return ""
    said = ["Intervals of 95 %."]
    if any("seeds" in item.basis for item in judgements):
        said.append(
            "Where the spread over seeds is known, by Student's t: of two means, of a mean and one more run, or of two "
            "runs of one group."
        )
    if any("mean of" in item.basis for item in judgements):
        said.append("Of a side with several seeds the accuracy is their mean, and not that of the run itself.")
    if any("gained" in item.basis for item in judgements):
        said.append(
            "Linear probes: McNemar's exact test on the images that one side alone has right; noise if "
            f"p >= {verdict.ALPHA}."
        )
    if any(item.basis.endswith("classes") for item in judgements):
        said.append("Means over the classes: McNemar's test, each image weighed by the size of its class.")
    if any(item.basis.endswith("images") for item in judgements):
        said.append("Other accuracies: by the number of images alone, which takes noise for larger than it is.")
    if any("images" in item.basis for item in judgements):
        said.append("By images there is the noise of the test images alone; another seed would move it further.")
    return " ".join(said)
