"""One page that compares revisions: what `make report` writes. It needs no network, and nothing but Git."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from review import results, verdict
from review.html import COLORS, Markup, join, lines, picture, table, tag
from review.revision import Experiment, Revision

PREDICTIONS = "reports/linear_eval/predictions.csv"
PROBES = {"predicted": "linear probe", "augmented": "through the encoder"}
STAGES = ("linear_eval", "embed", "evaluate", "pretrain")
"""Whose metrics come first."""
MAIN = ("linear_eval.pretrained.top1", "linear_eval.augmented.top1", "embed.knn_top1", "pretrain.val_knn_top1")
"""The metrics of the table of experiments."""
MOST_EXPERIMENTS = 200
"""In the table, the latest ones."""
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A revision, and what it left."""

    revision: Revision

    @property
    def name(self) -> str:
        return self.revision.name

    @cached_property
    def metrics(self) -> dict[str, float]:
        return results.metrics(self.revision)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        return results.parameters(self.revision)

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        paths = [path for path in self.revision.files("reports") if path.endswith(".png")]
        return {path: content for path in paths if (content := self.revision.read(path))}

    @cached_property
    def curves(self) -> dict[str, list[dict[str, str]]]:
        """The tables of reports/pretrain, which have a column epoch."""
        paths = [path for path in self.revision.files("reports/pretrain") if path.endswith(".csv")]
        return {path: rows for path in paths if "epoch" in (rows := results.table(self.revision, path) or [{}])[0]}


def page(columns: Sequence[Column], experiments: Sequence[Experiment], title: str) -> str:
    """The HTML of `columns`, of which the first is what the others are compared with."""
    sections = {
        "Verdict": _verdicts(columns),
        "Metrics": _metrics(columns),
        "Parameters that differ": _parameters(columns),
        "Curves": _curves(columns),
        "Classes": _classes(columns),
        "Pictures": _pictures(columns),
        "Made by": _records(columns),
        "All experiments": _experiments(experiments),
    }
    shown = {name: body for name, body in sections.items() if body}
    links = tag("nav", *(tag("a", name, href=f"#{_anchor(name)}") for name in shown))
    body = join(*(tag("section", tag("h2", name), content, id=_anchor(name)) for name, content in shown.items()))
    head = join(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
               "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"),
        tag("title", title), tag("style", Markup((_HERE / "page.css").read_text())),
    )  # fmt: skip
    script = tag("script", Markup((_HERE / "page.js").read_text()))
    html = tag(
        "html", tag("head", head), tag("body", tag("h1", title), _heading(columns), links, body, script), lang="en"
    )
    return f"<!DOCTYPE html>\n{html}\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _heading(columns: Sequence[Column]) -> Markup:
    """What each column is, and the commands that make it again."""
    rows = []
    for number, column in enumerate(columns):
        revision = column.revision
        again = f"git checkout {revision.commit[:12]} && dvc repro" if revision.commit else "dvc repro"
        name = join(tag("i", class_="key", style=f"background:{COLORS[number % len(COLORS)]}"), column.name)
        rows.append([name, revision.described or "not committed", tag("code", again)])
    return table(["", "what", "again"], rows)


def _verdicts(columns: Sequence[Column]) -> Markup:
    first, rows = columns[0], []
    for column in columns[1:]:
        tables = [(item.revision.read(PREDICTIONS) or b"").decode(errors="replace") for item in (first, column)]
        try:
            found = verdict.verdicts(*tables)
        except ValueError as reason:
            rows.append([column.name, "", "", "", "", "", f"none: {reason}"])
            continue
        for item in found:
            rows.append(
                [
                    column.name, PROBES.get(item.name, item.name), f"{100 * item.right_before / item.images:.2f}",
                    f"{100 * item.right_after / item.images:.2f}", f"{item.difference:+.2f} ± {item.margin:.2f}",
                    f"{item.gained} gained, {item.lost} lost of {item.images}",
                    tag("b", f"{item.word} (p {item.p_value:.2g})", class_=item.word.replace(" ", "-")),
                ]
            )  # fmt: skip
    if not rows:
        return Markup("")
    header = ["", "top-1 on test, %", first.name, "here", "difference", "images", "verdict"]
    note = (
        f"The same test images, one by one: McNemar's exact test, noise from p = {verdict.ALPHA} on; 95 % intervals. "
        "This is the noise of the test set, with one seed each; another seed moves both."
    )
    return join(table(header, rows), tag("p", note))


def _metrics(columns: Sequence[Column]) -> Markup:
    names = dict.fromkeys(name for column in columns for name in column.metrics)
    order = {stage: number for number, stage in enumerate(STAGES)}
    rows = []
    for name in sorted(names, key=lambda name: order.get(name.partition(".")[0], len(order))):
        values = [column.metrics.get(name) for column in columns]
        cells = [name, *(_number(value) for value in values)]
        cells += [_difference(values[0], value) for value in values[1:]]
        rows.append(cells)
    header = [
        "",
        *(column.name for column in columns),
        *(f"{column.name} - {columns[0].name}" for column in columns[1:]),
    ]
    return table(header, rows, class_="sortable filterable")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _difference(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return f"{after - before:+.4g}" if after != before else "="


def _parameters(columns: Sequence[Column]) -> Markup:
    if len(columns) < 2:
        return Markup("")
    comments: dict[str, str] = {}
    for column in reversed(columns):
        comments |= results.comments(column.revision)
    names = dict.fromkeys(name for column in columns for name in column.parameters)
    rows = [
        [name, *(_value(column.parameters, name) for column in columns), comments.get(name, "")]
        for name in names
        if len({_value(column.parameters, name) for column in columns}) > 1
    ]
    if not rows:
        return tag("p", "None.")
    return table(["", *(column.name for column in columns), "what it is"], rows)


def _value(parameters: Mapping[str, Any], name: str) -> str:
    if name not in parameters:
        return "-"
    return "null" if parameters[name] is None else str(parameters[name])


def _curves(columns: Sequence[Column]) -> Markup:
    colors = {column.name: COLORS[number % len(COLORS)] for number, column in enumerate(columns)}
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for column in columns:
        for rows in column.curves.values():
            for quantity in rows[0]:
                if quantity != "epoch":
                    charts.setdefault(quantity, {})[column.name] = list(_points(rows, quantity))
    return join(*(lines(series, colors, "epoch", quantity) for quantity, series in charts.items()))


def _points(rows: Sequence[Mapping[str, str]], quantity: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        try:
            yield float(row["epoch"]), float(row[quantity])
        except ValueError:
            continue


def _classes(columns: Sequence[Column]) -> Markup:
    """The accuracy of the linear probe on each class."""
    by_column = [
        {
            row["class"]: float(row["accuracy"])
            for row in results.table(column.revision, "reports/linear_eval/classes.csv")
        }
        for column in columns
    ]
    names = dict.fromkeys(name for accuracies in by_column for name in accuracies)
    rows = [
        [
            name,
            *(_number(accuracies.get(name)) for accuracies in by_column),
            *(_difference(by_column[0].get(name), accuracies.get(name)) for accuracies in by_column[1:]),
        ]
        for name in names
    ]
    header = [
        "linear probe, %",
        *(item.name for item in columns),
        *(f"{item.name} - {columns[0].name}" for item in columns[1:]),
    ]
    return table(header, rows, class_="sortable filterable") if rows else Markup("")


def _pictures(columns: Sequence[Column]) -> Markup:
    """Side by side; once where they are the same."""
    paths = dict.fromkeys(path for column in columns for path in column.pictures)
    figures = []
    for path in paths:
        by_content: dict[bytes, list[str]] = {}
        for column in columns:
            if path in column.pictures:
                by_content.setdefault(column.pictures[path], []).append(column.name)
        cells = [
            tag("figure", tag("figcaption", ", ".join(names)), picture(content, f"{path}, {', '.join(names)}"))
            for content, names in by_content.items()
        ]
        opened = {"open": ""} if len(by_content) > 1 or path.endswith(("map.png", "neighbors.png")) else {}
        name = path.removeprefix("reports/").removeprefix("draw/")
        state = "" if len(columns) == 1 else " (differs)" if len(by_content) > 1 else " (the same)"
        figures.append(tag("details", tag("summary", name, state), tag("div", *cells, class_="row"), **opened))
    return join(*figures)


def _records(columns: Sequence[Column]) -> Markup:
    rows = []
    for column in columns:
        record = results.record(column.revision, "pretrain")
        versions = ", ".join(f"{name} {number}" for name, number in record.get("versions", {}).items())
        machine = ", ".join(
            f"{name.replace('_', ' ')}: {record[name]}"
            for name in ("device", "instructions", "threads")
            if name in record
        )
        rows.append([column.name, machine or "not recorded", versions])
    return table(["pretrain", "machine", "versions"], rows)


def _experiments(experiments: Sequence[Experiment]) -> Markup:
    """Each in a row, and before them those that differ in seeds alone, together."""
    rows, groups = [], dict[str, list[dict[str, float]]]()
    for item in experiments[:MOST_EXPERIMENTS]:
        found, changed = results.metrics(Revision(item.name, item.commit)), _changed(item)
        metrics = [_number(found.get(name)) for name in MAIN]
        apply = tag("code", f"dvc exp apply {item.name}")
        rows.append([item.name, item.day, *metrics, " ".join(changed), apply])
        same = " ".join(change for change in changed if not change.partition("=")[0].endswith(".seed"))
        groups.setdefault(f"{item.base[:7]} {same}", []).append(found)
    if not rows:
        return Markup("")
    header = [*(name.partition(".")[2].replace(".", " ") for name in MAIN), "changed"]
    parts = [table(["", "day", *header, "into the workspace"], rows, class_="sortable filterable")]
    if seeds := [row for name, group in groups.items() if len(group) > 1 for row in [_seeds(name, group)]]:
        words = "Those that differ in seeds alone, together: mean ± standard deviation."
        parts = [tag("p", words), table(["begun at", "seeds", *header], seeds, class_="sortable"), *parts]
    return join(*parts)


def _seeds(name: str, group: Sequence[Mapping[str, float]]) -> list[str]:
    base, _, changed = name.partition(" ")
    cells = []
    for metric in MAIN:
        values = [found[metric] for found in group if metric in found]
        spread = f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else ""
        cells.append(spread)
    return [base, str(len(group)), *cells, changed]


def _changed(item: Experiment) -> list[str]:
    """What the experiment has in params.yaml that the commit it began at has not."""
    before, after = _at(item.base), _at(item.commit)
    return [f"{name}={after[name]}" for name in after if before.get(name) != after[name]]


@cache
def _at(commit: str) -> dict[str, Any]:
    return results.parameters(Revision(commit, commit))
