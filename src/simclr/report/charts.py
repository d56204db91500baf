"""Charts of accuracy and confusion as PNG files: equal input gives equal bytes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from simclr.report.class_names import drawable, shorten
from simclr.report.figure import COLORS, open_figure, text_width


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


def table_chart(path: Path, columns: Mapping[str, Sequence[float] | Sequence[str]], title: str) -> None:
    """A table as lines over its first column or, where that has texts, as bars beside them.

    Args:
        path: the PNG file; its parent folders are made.
        columns: two or more, by name, of one length; all but the first are numbers.
        title: stands above the chart.
    """
    (first, keys), *others = columns.items()
    series = {name: [float(value) for value in values] for name, values in others}
    if isinstance(keys[0], str):
        _bars(path, [str(key) for key in keys], series, title)
        return
    with open_figure(path, 760, 420) as figure:
        axes = figure.add_subplot(title=title, xlabel=_label(first))
        axes.grid()
        for color, (name, values) in zip(cycle(COLORS), series.items(), strict=False):
            axes.plot([float(key) for key in keys], values, color=color, linewidth=1.5, label=_label(name))
        _name(series, axes.set_ylabel, axes.legend)


def _bars(path: Path, names: Sequence[str], series: Mapping[str, Sequence[float]], title: str) -> None:
    values = [value for own in series.values() for value in own]
    low, high, thickness = min(0.0, *values), max(0.0, *values), 0.7 / len(series)
    with open_figure(path, 760, 90 + 30 * len(values) + 30 * (len(series) > 1)) as figure:
        axes = figure.add_subplot(title=title, xlim=(low * 1.12, high * 1.12 or 1.0))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        for number, (color, (name, own)) in enumerate(zip(cycle(COLORS), series.items(), strict=False)):
            places = [place + (number + 0.5) * thickness - 0.35 for place in range(len(names))]
            bars = axes.barh(places, own, height=0.9 * thickness, color=color, label=_label(name))
            axes.bar_label(bars, [f"{value:.{3 if high <= 1 else 2}f}" for value in own], padding=4)
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


def accuracy_bars(path: Path, names: Sequence[str], values: Sequence[float], title: str) -> None:
    """Accuracies side by side, the first one on top, the highest in color.

    Args:
        path: the PNG file; its parent folders are made.
        names: the names of the bars.
        values: in percent.
        title: stands above the bars.
    """
    with open_figure(path, 900, 90 + 46 * len(names)) as figure:
        axes = figure.add_subplot(title=title, xlabel="accuracy (%)", xlim=(0, 108), xticks=range(0, 101, 20))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        colors = [COLORS[0] if value == max(values) else "0.72" for value in values]
        bars = axes.barh(range(len(names)), values, height=0.62, color=colors)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
        axes.set_yticks(range(len(names)), [shorten(name, 40) for name in names])
        axes.invert_yaxis()


def notice(path: Path, text: str) -> None:
    """A picture of a line of text, in place of one that there is no data for."""
    with open_figure(path, 600, 80) as figure:
        figure.text(0.5, 0.5, text, ha="center", va="center")
