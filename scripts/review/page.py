"""One page that compares revisions, which `make report` writes. It needs no network; all but test images and their
maps is in Git."""

from collections.abc import Container, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from review import headline, judgement, results, seeds
from review.changed_images import changed_images
from review.column import Column
from review.curves import colors_by_name, curves
from review.experiments_table import changed, number_cell, of_experiments
from review.html import Markup, join, picture, table, tag
from review.judgement import Judgement
from review.maps import PICTURE, maps
from review.mistakes import mistakes
from review.revision import Experiment

_HERE = Path(__file__).parent


def page(columns: Sequence[Column], experiments: Sequence[Experiment], title: str) -> str:
    """The HTML of `columns`, of which the first is what the others are compared with."""
    embedding_maps, mapped = maps(columns)
    sections = {
        "Verdict": _verdicts(columns, _judged(columns, experiments)),
        "Metrics": _metrics(columns),
        "Parameters that differ": _parameters(columns),
        "Curves": curves(columns),
        "Classes": _classes(columns),
        "Mistakes": _mistakes(columns),
        "Images gained and lost": join(*(changed_images(columns[0].revision, other.revision) for other in columns[1:])),
        "Maps": embedding_maps,
        "Pictures": _pictures(columns, mapped),
        "Made by": _records(columns),
        "All experiments": of_experiments(experiments),
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
    script = tag("script", *(Markup((_HERE / name).read_text()) for name in ("page.js", "maps.js")))
    html = tag(
        "html",
        tag("head", head),
        tag("body", tag("h1", title), _heading(columns, experiments), links, body, script),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{html}\n"


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _heading(columns: Sequence[Column], experiments: Sequence[Experiment]) -> Markup:
    """What each column is, and the commands that make it again."""
    rows, colors = [], colors_by_name(columns)
    of_experiment = {item.commit: ": ".join(filter(None, (item.day, changed(item)))) for item in experiments}
    for column in columns:
        revision = column.revision
        again = f"git checkout {revision.commit[:12]} && dvc repro" if revision.commit else "dvc repro"
        name = join(tag("i", class_="key", style=f"background:{colors[column.name]}"), column.name)
        said = of_experiment.get(revision.commit) or revision.described or "not committed"
        rows.append([name, said, tag("code", again)])
    return table(["", "what", "again"], rows)


def _verdicts(columns: Sequence[Column], judged: Sequence[Sequence[Judgement] | str]) -> Markup:
    first, rows = columns[0], []
    names: dict[str | tuple[Judgement, ...], list[str]] = {}  # seeds of one run have one verdict
    for column, own in zip(columns[1:], judged, strict=True):
        names.setdefault(own if isinstance(own, str) else tuple(own), []).append(column.name)
    for judgements, of in names.items():
        if isinstance(judgements, str):
            rows.append([", ".join(of), f"none: {judgements}", "", "", "", "", ""])
            continue
        for item in judgements:
            word = tag("b", item.word, class_=item.word.replace(" ", "-"))
            rows.append([", ".join(of), word, headline.words(item.metric) or item.metric, *item.cells, item.basis])
    if not rows:
        return Markup("")
    other = columns[1].name if len(columns) == 2 else "the other"
    header = ["", "verdict", "accuracy, %", first.name, other, "difference", "judged by"]
    note = judgement.explained(
        [item for judgements in judged if not isinstance(judgements, str) for item in judgements]
    )
    return join(table(header, rows), tag("p", note))


def _judged(columns: Sequence[Column], experiments: Sequence[Experiment]) -> list[Sequence[Judgement] | str]:
    """The verdicts on each column but the first, or why there are none."""
    samples = [seeds.samples(column.revision, experiments) for column in columns]
    judged: list[Sequence[Judgement] | str] = []
    for column, own in zip(columns[1:], samples[1:], strict=True):
        try:
            judged.append(judgement.judge(columns[0].revision, column.revision, samples[0], own))
        except ValueError as reason:
            judged.append(str(reason))
    return judged


def _metrics(columns: Sequence[Column]) -> Markup:
    rows = sorted(dict.fromkeys(name for column in columns for name in column.metrics), key=headline.place)
    return _compared("", rows, [column.metrics for column in columns], columns)


def _compared(
    title: str, rows: Sequence[str], values: Sequence[Mapping[str, float]], columns: Sequence[Column]
) -> Markup:
    """A table of the `rows` of each column's `values`, and of their differences to those of the first."""
    cells = []
    for row in rows:
        own = [by_row.get(row) for by_row in values]
        cells.append([row, *map(number_cell, own), *(_difference(own[0], value) for value in own[1:])])
    names = [column.name for column in columns]
    header = [title, *names, *(f"{name} - {names[0]}" for name in names[1:])]
    return table(header, cells, class_="sortable filterable", data_differences=1 + len(columns))


def _difference(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "" if before is after else "new" if before is None else "gone"
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


def _classes(columns: Sequence[Column]) -> Markup:
    """The accuracy of the linear probe on each class."""
    tables = [results.table(column.revision, "reports/linear_eval/classes.csv") for column in columns]
    counts: dict[str, set[str]] = {}
    for row in chain(*tables):
        counts.setdefault(row.get("class", ""), set()).add(row.get("images") or "")
    # with the number of images, where that is the same in all
    labels = {
        name: f"{name}, {max(own)} images" if len(own) == 1 and own != {""} else name for name, own in counts.items()
    }
    by_column = []
    for rows in tables:
        accuracies = {labels[row.get("class", "")]: results.number(row.get("accuracy")) for row in rows}
        by_column.append({name: value for name, value in accuracies.items() if value is not None})
    names = list(dict.fromkeys(name for accuracies in by_column for name in accuracies))
    return _compared("linear probe, %", names, by_column, columns) if names else Markup("")


def _mistakes(columns: Sequence[Column]) -> Markup:
    """Where the confusion matrices differ."""
    names, by_column = mistakes([column.revision for column in columns])
    return _compared("linear probe, test images", names, by_column, columns) if names else Markup("")


def _pictures(columns: Sequence[Column], mapped: Container[str]) -> Markup:
    """Side by side; once where they are the same. That of the map is folded up if all that have it are `mapped`."""
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
        folded = path == PICTURE and all(name in mapped for names in by_content.values() for name in names)
        looked_at = len(by_content) > 1 or path.endswith(("map.png", "neighbors.png"))
        opened = {"open": ""} if looked_at and not folded else {}
        name = path.removeprefix("reports/").removeprefix("draw/")
        [*others] = (column.name for column in columns if path not in column.pictures)
        state = " (differs)" if len(by_content) > 1 else " (the same)" if len(columns) > 1 and not others else ""
        if others:
            state += f" (not in {', '.join(others)})"
        figures.append(tag("details", tag("summary", name, state), tag("div", *cells, class_="row"), **opened))
    return join(*figures)


def _records(columns: Sequence[Column]) -> Markup:
    rows = []
    for column in columns:
        record = results.record(column.revision, "pretrain")
        versions = ", ".join(f"{name} {number}" for name, number in results.flat(record.get("versions")).items())
        machine = ", ".join(
            f"{name.replace('_', ' ')}: {record[name]}"
            for name in ("device", "instructions", "threads")
            if name in record
        )
        rows.append([column.name, machine or "not recorded", versions])
    return table(["pretrain", "machine", "versions"], rows)
