"""Pictures as PNG files: the same input gives the same bytes, and one is small enough to be kept in Git.

Images are uint8 arrays (H, W, 3) of any and of mixed sizes. Class names may be of any length and hold any
character: the ends of long ones are left out, and where the font lacks a letter the label stands for the name, as #3.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from simclr.report import thumbnails
from simclr.report.figure import DPI, has_letters, save, saved, text_width

# Colors that stay apart for color-blind eyes too: M. A. Petroff, "Accessible color sequences for data
# visualization", 2021, table 1 (ten colors).
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = "o^"  # the second ten classes are told from the first by shape
SAME, OTHER = "#009e73", "#d55e00"  # bluish green and vermilion of Okabe and Ito, 2008

MARGIN = 12  # pixels around and between the parts of a sheet
GAP = 3  # pixels between the cells of a sheet


def contact_sheet(
    path: Path, images: Sequence[NDArray[np.uint8]], labels: Sequence[int], classes: Sequence[str], title: str
) -> None:
    """Samples of a split: a row for each class, by label, or a plain grid where none has a label.

    Args:
        path: the PNG file; its parent folders are made.
        images: N images; 10 rows of 12 are as many as a file should hold.
        labels: N of 0 ... C-1, or -1 where there is no label.
        classes: C names.
        title: stands above the sheet.
    """
    names = _drawable(classes)
    if set(labels) == {-1}:
        rows = [("", list(images[start : start + 12])) for start in range(0, len(images), 12)]
    else:
        rows = [
            (
                _short(names[label]) if label >= 0 else "unlabelled",
                [image for image, of in zip(images, labels, strict=True) if of == label],
            )
            for label in sorted(set(labels))
        ]
    side = thumbnails.side(images)
    step = side + GAP
    name_width = max(text_width(name, 8) for name, _ in rows)
    left = MARGIN + (name_width + MARGIN if name_width else 0)
    top = 4 * MARGIN - 6
    columns = max(len(row) for _, row in rows)
    width = max(left + columns * step - GAP, MARGIN + text_width(title, 9)) + MARGIN
    canvas = np.full((top + len(rows) * step - GAP + MARGIN, width, 3), 255, np.uint8)
    for y, (_, row) in zip(range(top, len(canvas), step), rows, strict=False):
        for x, image in zip(range(left, width, step), row, strict=False):
            canvas[y : y + side, x : x + side] = thumbnails.fit(image, side)
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, top / 2, title, size=9, va="center_baseline")
        for y, (name, _) in zip(range(top, len(canvas), step), rows, strict=False):
            axes.text(left - MARGIN, y + side / 2, name, ha="right", va="center_baseline")


def neighbor_sheet(
    path: Path,
    queries: Sequence[NDArray[np.uint8]],
    neighbors: Sequence[Sequence[NDArray[np.uint8]]],
    correct: Sequence[Sequence[bool]],
    title: str,
) -> None:
    """Each row a query, then its nearest neighbors: framed solid if of its class, dashed and crossed if not.

    Args:
        path: the PNG file; its parent folders are made.
        queries: Q images.
        neighbors: for each query its K images, nearest first.
        correct: for each query K times whether the neighbor is of the query's class.
        title: stands above the sheet.
    """
    side = thumbnails.side([*queries, *(image for row in neighbors for image in row)])
    frame = 3  # pixels; drawn in the gap around a cell
    step = side + 2 * frame + GAP
    left, top = MARGIN + step + 2 * MARGIN, 6 * MARGIN
    legend = "solid green: same class as the query    dashed red, crossed: another class"
    columns = len(neighbors[0])
    width = max(left + columns * step, MARGIN + max(text_width(title, 9), text_width(legend, 7))) + MARGIN
    canvas = np.full((top + len(queries) * step + 3 * MARGIN, width, 3), 255, np.uint8)
    for index, (query, row) in enumerate(zip(queries, neighbors, strict=True)):
        y = top + index * step
        for x, image in zip([MARGIN, *range(left, width, step)], [query, *row], strict=False):
            canvas[y : y + side, x : x + side] = thumbnails.fit(image, side)
    with _sheet(path, canvas) as axes:
        axes.text(MARGIN, 18, title, size=9, va="center_baseline")
        axes.text(MARGIN, top - 16, "query", size=7, va="center_baseline")
        axes.text(left, top - 16, "nearest neighbors, nearest first", size=7, va="center_baseline")
        axes.text(MARGIN, len(canvas) - 18, legend, size=7, va="center_baseline")
        for row, column in np.ndindex(len(queries), columns):
            x, y, same = left + column * step, top + row * step, correct[row][column]
            corner, length = (x - frame / 2 - 0.5, y - frame / 2 - 0.5), side + frame
            axes.add_patch(
                Rectangle(
                    corner, length, length, fill=False, edgecolor=SAME if same else OTHER,
                    linewidth=frame * 72 / DPI, linestyle="solid" if same else (0, (2, 1)),
                )
            )  # fmt: skip
            if not same:
                axes.plot(x + side - 8, y + 8, "X", color=OTHER, markeredgecolor="white", markersize=7)


def view_grid(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pairs of views side by side, the pairs in a grid.

    Args:
        first, second: uint8 (N, H, W, 3); the two views of sample i are first[i] and second[i].

    Returns:
        uint8 (H', W', 3).
    """
    side = thumbnails.side([*first, *second])
    columns = round(len(first) ** 0.5)
    rows = -(-len(first) // columns)
    height, width = side + MARGIN, 2 * side + GAP + MARGIN
    grid = np.full((rows * height + MARGIN, columns * width + MARGIN, 3), thumbnails.PADDING, np.uint8)
    for index, pair in enumerate(zip(first, second, strict=True)):
        y = MARGIN + index // columns * height
        for view, image in enumerate(pair):
            x = MARGIN + index % columns * width + view * (side + GAP)
            grid[y : y + side, x : x + side] = thumbnails.fit(image, side)
    return grid


def picture(path: Path, image: NDArray[np.uint8]) -> None:
    """The image (H, W, 3) as it is; parent folders of the PNG file `path` are made."""
    save(path, Image.fromarray(image))


def embedding_map(
    path: Path, points: NDArray[np.floating], labels: NDArray[np.integer], classes: Sequence[str], title: str
) -> None:
    """Points in the plane, colored by class, with a legend.

    More than 20 classes have no legend, but up to 100 are named in place.

    Args:
        path: the PNG file; its parent folders are made.
        points: (N, 2), of a map whose axes have no meaning (t-SNE, UMAP).
        labels: (N,) of 0 ... C-1.
        classes: C names.
        title: stands above the map.
    """
    area = float(np.clip(12000 / max(1, len(points)), 5, 36))
    legend = len(classes) <= len(COLORS) * len(MARKERS)
    with saved(path, 1000 if legend else 900, 800) as figure:
        axes = figure.add_subplot(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        if legend:
            for index, name in enumerate(_drawable(classes)):
                marker, color = MARKERS[index // len(COLORS)], COLORS[index % len(COLORS)]
                x, y = points[labels == index].T
                axes.scatter(x, y, area, color, marker=marker, linewidths=0, alpha=0.85, label=_short(name))
            figure.legend(loc="outside right upper", markerscale=(30 / area) ** 0.5)
        else:
            # Neighboring labels get distant hues: multiples of the golden section, modulo 1.
            hues = colormaps["turbo"](np.arange(len(classes)) * 0.618034 % 1)
            axes.scatter(points[:, 0], points[:, 1], area, hues[labels], linewidths=0, alpha=0.7)
            if len(classes) <= 100:
                axes.margins(0.08)  # half a name, at the outermost points
                _name_medians(figure, axes, points, labels, _drawable(classes))


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
    written = count <= 20
    side = count * max(40, 440 // count, text_width(str(counts.max()), 7) + 8) if written else 720
    ticks = range(0, count, -(-count // (side // 14)))
    drawable = _drawable(classes)
    names = [_short(drawable[tick], 20) for tick in ticks]
    text = max(text_width(name, 7) for name in names)
    with saved(path, side + text + 200, side + text + 110) as figure:
        axes = figure.add_subplot(title=title, xlabel="predicted class", ylabel="true class")
        # The square root makes rare confusions visible beside a diagonal close to 1.
        shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
        axes.spines[:].set_visible(False)
        axes.set_xticks(ticks, names, rotation=90, size=7)
        axes.set_yticks(ticks, names, size=7)
        axes.tick_params(length=0 if written else 2)
        bar = figure.colorbar(shown, label="share of the true class", ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], shrink=0.7)
        bar.outline.set_visible(False)
        if written:
            for (row, column), number in np.ndenumerate(counts):
                color = "white" if shares[row, column] > 0.4 else "0.2" if number else "0.7"
                axes.text(column, row, str(number), color=color, size=7, ha="center", va="center_baseline")


def accuracy_bars(path: Path, names: Sequence[str], values: Sequence[float], title: str) -> None:
    """Accuracies side by side, the first one on top, the highest in color.

    Args:
        path: the PNG file; its parent folders are made.
        names: what was measured.
        values: in percent.
        title: stands above the bars.
    """
    with saved(path, 900, 90 + 46 * len(names)) as figure:
        axes = figure.add_subplot(title=title, xlabel="accuracy (%)", xlim=(0, 108), xticks=range(0, 101, 20))
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        colors = [COLORS[0] if value == max(values) else "0.72" for value in values]
        bars = axes.barh(range(len(names)), values, height=0.62, color=colors)
        axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
        axes.set_yticks(range(len(names)), [_short(name, 40) for name in names])
        axes.invert_yaxis()


def curves(path: Path, rows: Sequence[Mapping[str, Any]], panels: Mapping[str, str], title: str) -> None:
    """The course of a training: several quantities against the epoch, each in a panel of its own.

    Args:
        path: the PNG file; its parent folders are made.
        rows: with the key "epoch" and those of `panels`; None where a quantity was not measured.
        panels: key in the rows -> name of the quantity, with its unit.
        title: stands above the panels.
    """
    with saved(path, 380 * len(panels), 330) as figure:
        figure.suptitle(title, x=0.01, ha="left", size=9)
        for column, (key, name) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), column, title=name, xlabel="epoch")
            measured = [(row["epoch"], row[key]) for row in rows if row[key] is not None]
            # One point draws no line, and points far apart are measurements, not a continuous curve.
            sparse = len(measured) == 1 or len(measured) < len(rows)
            marker = "o" if sparse else ""
            axes.plot(*zip(*measured, strict=True), color=COLORS[0], marker=marker, markersize=3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter("{x:.4g}")
            axes.grid()


def _name_medians(
    figure: Figure,
    axes: Axes,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: Sequence[str],
) -> None:
    """Write the names at the medians of their points, those of large classes first, where none overlaps."""
    figure.draw_without_rendering()  # settles the layout, so that extents are final
    sizes = np.bincount(labels, minlength=len(names))
    placed: list[Any] = []
    for index in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        x, y = np.median(points[labels == index], axis=0)
        text = axes.text(x, y, _short(names[index], 18), size=7, ha="center", va="center")
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="white")])
        extent = text.get_window_extent().padded(2)
        if any(extent.overlaps(other) for other in placed):
            text.remove()
        else:
            placed.append(extent)


def _drawable(classes: Sequence[str]) -> list[str]:
    """The names that the font has all letters of; the label instead of each other."""
    return [name if has_letters(name) else f"#{label}" for label, name in enumerate(classes)]


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip(" ,") + "…"


@contextmanager
def _sheet(path: Path, canvas: NDArray[np.uint8]) -> Iterator[Axes]:
    """Axes over the image `canvas` (H, W, 3), in its pixels and y down; at the end both go to `path`."""
    height, width = canvas.shape[:2]
    with saved(path, width, height, layout=None) as figure:
        figure.figimage(canvas, zorder=-1)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        yield axes
