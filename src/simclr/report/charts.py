"""Charts of accuracy and confusion as PNG files: equal input gives equal bytes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle
from operator import sub
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from simclr.report.class_names import drawable, shorten
from simclr.report.figure import COLORS, open_figure, text_width

_LABEL = 0.045
"""The width of a number of three digits, as a share of an axis."""
_MARKED = 12
"""Points of a line at most that are marked as what was measured."""


@dataclass(frozen=True)
class _Series:
    """Numbers of a chart, and the low and the high `limits` of their intervals, if there are any."""

    values: list[float]
    limits: tuple[list[float], list[float]] | None

    def errors(self) -> list[list[float]] | None:
        """The lengths (2, n) of the intervals on both sides of the values; none is below 0, as by rounding at 100 %."""
        if not self.limits:
            return None
        low, high = self.limits
        sides = map(sub, self.values, low), map(sub, high, self.values)
        return [[max(0.0, length) for length in side] for side in sides]


def confusion_matrix(path: Path, counts: NDArray[np.integer], classes: Sequence[str], title: str) -> None:
    """True classes down, predicted classes across; shaded by the share of the row, which is the true class.

    Args:
        path: the PNG file; its parent folders are made.
        counts: (C, C); they are written into the cells for up to 20 classes.
        classes: C names; for many classes every k-th is written.
        title: stands above the matrix.
    """
    count = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    has_counts = count <= 20
    side = count * max(40, 440 // count, text_width(str(counts.max()), 7) + 8) if has_counts else 720
    ticks = range(0, count, -(-count // (side // 14)))
    all_names = drawable(classes)
    names = [shorten(all_names[tick], 20) for tick in ticks]
    text = max(text_width(name, 7) for name in names)
    with open_figure(path, side + text + 200, side + text + 110) as figure:
        axes = figure.add_subplot(title=title, xlabel="predicted class", ylabel="true class")
        # The square root makes rare confusions visible beside a diagonal close to 1.
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        axes.spines[:].set_visible(False)
        axes.set_xticks(ticks, names, rotation=90, size=7)
        axes.set_yticks(ticks, names, size=7)
        axes.tick_params(length=0 if has_counts else 2)
        bar = figure.colorbar(image, label="share of the true class", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], shrink=0.7)
        bar.outline.set_visible(False)
        if has_counts:
            for (row, column), number in np.ndenumerate(counts):
                color = "white" if shares[row, column] > 0.4 else "0.2" if number else "0.7"
                axes.text(column, row, str(number), color=color, size=7, ha="center", va="center_baseline")


def table_chart(
    path: Path,
    columns: Mapping[str, Sequence[float] | Sequence[str]],
    title: str,
    *,
    reference: str = "",
    logarithmic: bool = False,
) -> None:
    """A table as lines over its first column or, where that has texts, as bars beside them.

    Args:
        path: the PNG file; its parent folders are made.
        columns: two or more, by name, of one length; all but the first are numbers. <name>_low and <name>_high are the
            interval of <name>.
        title: stands above the chart.
        reference: the text of a bar that the others are read against: it is gray, and a line across them.
        logarithmic: whether the axis of the first column is, if its numbers are above 0.
    """
    (first, keys), *others = columns.items()
    numbers = {name: [float(value) for value in values] for name, values in others}
    limits = {
        name: (numbers[f"{name}_low"], numbers[f"{name}_high"])
        for name in numbers
        if {f"{name}_low", f"{name}_high"} <= numbers.keys()
    }
    ends = {f"{name}_{end}" for name in limits for end in ("low", "high")}
    series = {name: _Series(values, limits.get(name)) for name, values in numbers.items() if name not in ends}
    if isinstance(keys[0], str):
        _bars(path, [str(key) for key in keys], series, title, reference)
        return
    places = [float(key) for key in keys]
    marker = "o" if len(places) <= _MARKED else ""
    with open_figure(path, 760, 420) as figure:
        axes = figure.add_subplot(title=title, xlabel=_label(first))
        axes.grid()
        if logarithmic and min(places) > 0:
            axes.set_xscale("log")
            axes.set_xticks(places, _labels_apart(places), size=6)
            axes.minorticks_off()
        for color, (name, own) in zip(cycle(COLORS), series.items(), strict=False):
            axes.errorbar(
                places, own.values, own.errors() if len(places) == 1 else None, capsize=2,
                color=color, linewidth=1.5, marker=marker, markersize=3.5, label=_label(name),
            )  # fmt: skip
            if own.limits:
                axes.fill_between(places, *own.limits, color=color, alpha=0.15, linewidth=0)
        _name(series, axes.set_ylabel, axes.legend)


def _labels_apart(places: Sequence[float]) -> list[str]:
    """The numbers `places`, which rise, as labels of a logarithmic axis; empty where one would lie on that before."""
    labels, last = [], -math.inf
    for place in places:
        is_apart = math.log(place) - last >= _LABEL * math.log(places[-1] / places[0])
        labels.append(f"{place:.12g}" if is_apart else "")
        last = math.log(place) if is_apart else last
    return labels


def _bars(path: Path, names: Sequence[str], series: Mapping[str, _Series], title: str, reference: str) -> None:
    ends = [end for own in series.values() for end in chain(own.values, *(own.limits or ()))]
    low, high, thickness = min(0.0, *ends), max(0.0, *ends), 0.7 / len(series)
    with open_figure(path, 760, 90 + 30 * len(names) * len(series) + 30 * (len(series) > 1)) as figure:
        axes = figure.add_subplot(title=title, xlim=(low * 1.12, high * 1.12 or 1.0))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        for number, (color, (name, own)) in enumerate(zip(cycle(COLORS), series.items(), strict=False)):
            places = [place + (number + 0.5) * thickness - 0.35 for place in range(len(names))]
            colors = ["0.72" if text == reference else color for text in names]
            bars = axes.barh(
                places, own.values, height=0.9 * thickness, color=colors, label=_label(name),
                xerr=own.errors(), error_kw={"ecolor": "0.3", "elinewidth": 1, "capsize": 2},
            )  # fmt: skip
            axes.bar_label(bars, [f"{value:.{3 if high <= 1 else 2}f}" for value in own.values], padding=4)
            if reference in names:
                axes.axvline(own.values[names.index(reference)], color="0.5", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(names)), [shorten(name, 40) for name in drawable([_label(name) for name in names])])
        axes.invert_yaxis()
        # a legend outside, because bars leave no place
        _name(series, axes.set_xlabel, partial(figure.legend, loc="outside lower center", ncols=len(series)))


def _name(series: Mapping[str, object], label: Callable[[str], object], legend: Callable[[], object]) -> None:
    """Name one series by a label of its axis, and several by a legend."""
    if len(series) == 1:
        label(_label(*series))
    else:
        legend()


def _label(name: str) -> str:
    return name.replace("_", " ")


def notice(path: Path, text: str) -> None:
    """A picture of a line of text, in place of one that there is no data for."""
    with open_figure(path, 600, 80) as figure:
        figure.text(0.5, 0.5, text, ha="center", va="center")
