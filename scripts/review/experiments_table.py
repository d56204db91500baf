"""The table of all experiments of a repository."""

from collections.abc import Sequence
from functools import cache
from statistics import mean, stdev
from typing import Any

from review import results
from review.html import Markup, join, table, tag
from review.revision import Experiment, Revision, git

METRICS = ("linear_eval.pretrained.top1", "linear_eval.augmented.top1", "embed.knn_top1", "pretrain.val_knn_top1")
MOST = 200
"""Rows, the latest experiments."""
_CODE = ("src", "stages", "dvc.yaml")


def of_experiments(experiments: Sequence[Experiment]) -> Markup:
    """Each in a row, and before them those that differ in seeds alone, together."""
    rows = []
    groups: dict[tuple[str, ...], list[Experiment]] = {}
    for item in experiments[:MOST]:
        cells = [number_cell(_metrics(item.commit).get(name)) for name in METRICS]
        rows.append([item.name, item.day, *cells, _changed(item), tag("code", f"dvc exp apply {item.name}")])
        groups.setdefault(_but_for_seeds(item.commit), []).append(item)
    if not rows:
        return Markup("")
    header = [*(name.partition(".")[2].replace(".", " ") for name in METRICS), "changed"]
    parts = [table(["", "day", *header, "into the workspace"], rows, class_="sortable filterable")]
    if seeds := [_over_seeds(group) for group in groups.values() if len({_seeds(item.commit) for item in group}) > 1]:
        words = "Those with the same code and parameters but for seeds, together: mean ± standard deviation."
        parts = [tag("p", words), table(["", "seeds", *header], seeds, class_="sortable"), *parts]
    return join(*parts)


def number_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _over_seeds(group: Sequence[Experiment]) -> list[str]:
    by_seeds = {_seeds(item.commit): item for item in group}  # the same twice counts once
    cells = []
    for name in METRICS:
        values = [value for item in by_seeds.values() if (value := _metrics(item.commit).get(name)) is not None]
        cells.append(f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else "")
    first = next(iter(by_seeds.values()))
    return [f"{first.name}, ...", str(len(by_seeds)), *cells, _changed(first, seeds=False)]


def _changed(item: Experiment, *, seeds: bool = True) -> str:
    """What the experiment has in params.yaml that the commit it began at has not."""
    before, after = _parameters(item.base), _parameters(item.commit)
    if not before:
        return ""
    names = [name for name in before | after if before.get(name) != after.get(name) and (seeds or not _is_seed(name))]
    changes = [f"{name}={after[name]}" if name in after else f"without {name}" for name in names]
    return " ".join([*changes, *["(other code)"] * (_code(item.base) != _code(item.commit))])


def _is_seed(name: str) -> bool:
    return name.endswith(".seed")


def _but_for_seeds(commit: str) -> tuple[str, ...]:
    values = _parameters(commit)
    return _code(commit), *(f"{name}={values[name]}" for name in sorted(values) if not _is_seed(name))


def _seeds(commit: str) -> tuple[str, ...]:
    values = _parameters(commit)
    return tuple(f"{name}={values[name]}" for name in sorted(values) if _is_seed(name))


@cache
def _parameters(commit: str) -> dict[str, Any]:
    return results.parameters(Revision(commit, commit))


@cache
def _metrics(commit: str) -> dict[str, float]:
    return results.metrics(Revision(commit, commit))


@cache
def _code(commit: str) -> str:
    """What Git calls the code of a commit by."""
    return " ".join(git("rev-parse", "--verify", "--quiet", f"{commit}:./{path}").strip() for path in _CODE)
