"""Curves of pretraining, overlaid: one for each revision, and one with a band for those that differ in seeds alone."""

from collections.abc import Sequence
from statistics import mean

from review import seeds
from review.column import Column
from review.html import COLORS, Curve, Markup, join, lines, tag

Points = Sequence[tuple[float, float]]


def curves(columns: Sequence[Column]) -> Markup:
    """A chart of each quantity by epoch."""
    colors, groups = colors_by_name(columns), groups_by_seeds(columns)
    charts = [
        lines([_curve(group, quantity, colors) for group in groups], "epoch", _title(quantity))
        for quantity in dict.fromkeys(quantity for column in columns for quantity in column.curves)
    ]
    if any(charts) and any(len(group) > 1 for group in groups):
        note = "Runs that differ in seeds alone are one curve, their mean; the band is from the lowest to the highest."
        charts.append(tag("p", note))
    return join(*charts)


def _title(quantity: str) -> str:
    return f"{quantity} on val" if quantity.endswith("_top1") else quantity


def colors_by_name(columns: Sequence[Column]) -> dict[str, str]:
    """The color of each column: one for those that are one curve."""
    groups = groups_by_seeds(columns)
    return {column.name: COLORS[k % len(COLORS)] for k, group in enumerate(groups) for column in group}


def groups_by_seeds(columns: Sequence[Column]) -> list[list[Column]]:
    """The columns, those that differ in seeds alone together. The workspace stays by itself, since its code may differ
    from that of any commit, and so do commits with the same seeds, which are no luck of a seed."""
    by_key: dict[tuple[str, ...], list[Column]] = {}
    for column in columns:
        commit = column.revision.commit
        by_key.setdefault(seeds.but_for_seeds(commit) if commit else (), []).append(column)
    groups = []
    for group in by_key.values():
        differ = len({seeds.of(column.revision.commit) for column in group}) == len(group)
        groups += [group] if differ else [[column] for column in group]
    return groups


def over_seeds(runs: Sequence[Points]) -> tuple[list[tuple[float, float]], list[tuple[float, float, float]]]:
    """The mean (x, y) of several runs, and their band (x, lowest, highest), at every x that all of them have."""
    values = [dict(points) for points in runs]
    common = [x for x in values[0] if all(x in own for own in values)]
    at = {x: [own[x] for own in values] for x in common}
    return [(x, mean(ys)) for x, ys in at.items()], [(x, min(ys), max(ys)) for x, ys in at.items()]


def _curve(group: Sequence[Column], quantity: str, colors: dict[str, str]) -> Curve:
    name, color = ", ".join(column.name for column in group), colors[group[0].name]
    runs = [points for column in group if (points := column.curves.get(quantity))]
    if len(runs) < 2:
        return Curve(name, color, runs[0] if runs else [])
    return Curve(f"{name} ({len(runs)} seeds)", color, *over_seeds(runs))
