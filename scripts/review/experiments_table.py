"""The table of all experiments of a repository."""

from collections.abc import Sequence

from review import seeds
from review.headline import METRICS
from review.html import Markup, join, table, tag
from review.revision import Experiment

MOST = 200
"""Rows, the latest experiments."""


def of_experiments(experiments: Sequence[Experiment]) -> Markup:
    """Each in a row, and before them those that differ in seeds alone, together."""
    rows = []
    for item in experiments[:MOST]:
        cells = [number_cell(seeds.metrics(item.commit).get(name)) for name in METRICS]
        rows.append([item.name, item.day, *cells, changed(item), tag("code", f"dvc exp apply {item.name}")])
    if not rows:
        return Markup("")
    header = [*(name.partition(".")[2].replace(".", " ") for name in METRICS), "changed"]
    parts = [table(["", "day", *header, "into the workspace"], rows, class_="sortable filterable")]
    if over_seeds := [_over_seeds(group) for group in seeds.groups(experiments[:MOST]).values() if len(group) > 1]:
        words = "Those with the same code and parameters but for seeds, together: mean ± standard deviation."
        parts = [tag("p", words), table(["", "seeds", *header], over_seeds, class_="sortable"), *parts]
    return join(*parts)


def number_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _over_seeds(group: Sequence[Experiment]) -> list[str]:
    samples = (seeds.sample([item.commit for item in group], name) for name in METRICS)
    cells = ["" if sample is None else f"{sample.mean:.2f} ± {sample.sd:.2f}" for sample in samples]
    return [", ".join(item.name for item in group), str(len(group)), *cells, changed(group[-1], with_seeds=False)]


def changed(item: Experiment, *, with_seeds: bool = True) -> str:
    """What the experiment has in params.yaml that the commit it began at has not."""
    before, after = seeds.parameters(item.base), seeds.parameters(item.commit)
    if not before:
        return ""
    names = [name for name in before | after if before.get(name) != after.get(name)]
    changes = [
        f"{name}={after[name]}" if name in after else f"without {name}"
        for name in names
        if with_seeds or not seeds.is_seed(name)
    ]
    return " ".join([*changes, *["(other code)"] * (seeds.code(item.base) != seeds.code(item.commit))])
