"""Charts of accuracy and confusion as PNG files: equal input gives equal bytes."""

from collections.abc import Mapping, Sequence
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


def table_chart(path: Path, rows: Sequence[Mapping[str, float | str]], title: str) -> None:
    """A table as lines over its first column or, where that has texts, as bars beside them.

    Args:
        path: the PNG file; its parent folders are made.
        rows: at least one, all with the same two columns or more; all but the first column are numbers.
        title: stands above the chart.
    """
    first, *others = (column for column in rows[0])
    keys, series = [row[first] for row in rows], {column: [float(row[column]) for row in rows] for column in others}
    if any(isinstance(key, str) for key in keys):
        for column, values in series.items():
            _bars(path, [str(key) for key in keys], values, title, column)
        return
    with open_figure(path, 760, 420) as figure:
        axes = figure.add_subplot(
            title=title, xlabel=_label(first), ylabel=_label(others[0]) if len(others) == 1 else ""
        )
        axes.grid()
        for color, (column, values) in zip(COLORS, series.items(), strict=False):
            axes.plot([float(key) for key in keys], values, color=color, linewidth=1.5, label=_label(column))
        if len(others) > 1:
            axes.legend()


def _bars(path: Path, names: Sequence[str], values: Sequence[float], title: str, quantity: str) -> None:
    with open_figure(path, 760, 90 + 30 * len(names)) as figure:
        low, high = min(0.0, *values), max(0.0, *values)
        axes = figure.add_subplot(title=title, xlabel=_label(quantity), xlim=(low * 1.12, high * 1.12 or 1.0))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        bars = axes.barh(range(len(names)), values, height=0.62, color=COLORS[0])
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=4)
        axes.set_yticks(range(len(names)), [shorten(_label(name), 40) for name in names])
        axes.invert_yaxis()


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
