"""HTML in which every text is escaped, and charts as SVG."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

COLORS = ("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#00966f", "#a96b59", "#e76300", "#717581")
"""Of columns: those of M. A. Petroff 2021 that differ most, and a green."""
LARGEST = 4 << 20
"""Bytes of a picture."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 640, 280, 84, 22, 36, 14


_LONG = 25
"""Characters of a cell that is no number, whatever its column has."""
_NUMBER = re.compile(r"([-+]?\d+(\.\d+)?(e[-+]?\d+)?( ± [\d.]+)?|=)$")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(content: Any) -> Markup:
    """Escaped, but for what is markup already."""
    return content if isinstance(content, Markup) else Markup(escape(str(content)))


def tag(name: str, *content: Any, **attributes: Any) -> Markup:
    """An element; `class_` is the attribute class, and a hyphen is written as _."""
    return Markup(f"<{name}{_written(attributes)}>{join(*content)}</{name}>")


def join(*content: Any) -> Markup:
    return Markup("".join(map(text, content)))


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]], **attributes: Any) -> Markup:
    """A table in a box of its own that scrolls; the first cell of a row is its heading, and numbers stand right."""
    kinds = ["number" if any(_NUMBER.match(str(row[k])) for row in rows) else "text" for k in range(len(header))]
    head = [tag("th", cell, scope="col", class_=kind) for cell, kind in zip(header, kinds, strict=True)]
    body = [
        [
            tag("th", row[0], scope="row"),
            *(
                tag("td", cell, class_=kind if len(str(cell)) < _LONG else "text")
                for cell, kind in zip(row[1:], kinds[1:], strict=True)
            ),
        ]
        for row in rows
    ]
    content = join(tag("thead", tag("tr", *head)), tag("tbody", *(tag("tr", *cells) for cells in body)))
    return tag("div", tag("table", content, **attributes), class_="box", tabindex="0")


def picture(content: bytes, description: str) -> Markup:
    """A PNG file within the page; words in place of what is none, or large."""
    if not content.startswith(b"\x89PNG") or len(content) > LARGEST:
        return tag("p", f"no PNG file of at most {LARGEST >> 20} MiB")
    return image(content, "png", description, loading="lazy")


def image(content: bytes, kind: str, description: str, **attributes: Any) -> Markup:
    """A file of an image within the page, of a `kind` such as png."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Markup(f"<img{_written({'src': source, 'alt': description, **attributes})}>")


@dataclass(frozen=True)
class Curve:
    """A line through finite `points` (x, y), and behind it a `band` of (x, lowest, highest)."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


def lines(curves: Sequence[Curve], x: str, y: str) -> Markup:
    """A chart of those curves that have points."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return Markup("")
    points = [point for curve in curves for point in (*curve.points, *_outline(curve))]
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    right, high = right if right > left else left + 1, high if high > low else low + 1

    def place(point: tuple[float, float]) -> str:
        across = _LEFT + (point[0] - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        up = _HEIGHT - _BOTTOM - (point[1] - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)
        return f"{across:.1f},{up:.1f}"

    bands = [
        tag("polygon", points=" ".join(map(place, _outline(curve))), fill=curve.color, fill_opacity="0.25")
        for curve in curves
        if curve.band
    ]
    drawn = [
        tag("polyline", tag("title", curve.name), points=" ".join(map(place, curve.points)), fill="none",
            stroke=curve.color, stroke_width="2")
        for curve in curves
    ]  # fmt: skip
    dots = [
        tag("circle", tag("title", curve.name), cx=across, cy=up, r="3", fill=curve.color)
        for curve in curves
        if len(curve.points) == 1  # of which a line shows nothing
        for across, up in [place(curve.points[0]).split(",")]
    ]
    marks = [
        *(_mark(place((left, value)), f"{value:.3g}", "end", -6, 5) for value in (low, (low + high) / 2, high)),
        *(_mark(place((value, low)), f"{value:.3g}", "middle", 0, 22) for value in (left, (left + right) / 2, right)),
    ]
    legend = tag("p", *(key(curve.name, curve.color) for curve in curves), class_="legend")
    heading = tag("figcaption", f"{y} by {x}")
    svg = tag(
        "svg", *bands, *drawn, *dots, *marks, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{y} by {x}"
    )
    return tag("figure", heading, svg, legend)


def key(name: str, color: str) -> Markup:
    """What a color means, in a legend."""
    return tag("span", tag("i", style=f"background:{color}"), name)


def _outline(curve: Curve) -> list[tuple[float, float]]:
    """Around the band: along the highest, and back along the lowest."""
    return [*((x, high) for x, _, high in curve.band), *((x, low) for x, low, _ in reversed(curve.band))]


def _mark(place: str, words: str, anchor: str, right: int, down: int) -> Markup:
    across, up = place.split(",")
    return tag("text", words, x=float(across) + right, y=float(up) + down, text_anchor=anchor)


def _written(attributes: Mapping[str, Any]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for name, value in attributes.items()
    )
