"""matplotlib figures in one style, with sizes in pixels, and equal files for equal drawings.

They are independent of pyplot's global state and the user's matplotlibrc.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image

from simclr.core import atomic

# A power of two, so that a width in pixels is an exact number of inches.
DPI = 128
# Colors that stay apart for color-blind eyes too: M. A. Petroff, "Accessible color sequences for data
# visualization", 2021, table 1 (ten colors).
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.6",
    "grid.color": "0.9",
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "legend.frameon": False,
    "text.parse_math": False,  # a "$" in a class name is a "$"
}


@contextmanager
def open_figure(
    path: Path, width: int, height: int, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` pixels, which is saved as the PNG file `path` at the end."""
    with _apply_style():
        figure = Figure((width / DPI, height / DPI), dpi=DPI, layout=layout)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    save(path, Image.open(buffer))


def save(path: Path, picture: Image.Image) -> None:
    """Write the PNG file `path` without metadata, such as versions and dates, and with a palette of 256 colors, which
    makes it two to four times smaller.
    """
    buffer = io.BytesIO()
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    atomic.write_bytes(path, buffer.getvalue())


def text_width(text: str, size: float) -> int:
    """The width in pixels of a line of `size` points."""
    with _apply_style():
        return round(Figure(dpi=DPI).text(0, 0, text, size=size).get_window_extent().width)


def has_letters(text: str) -> bool:
    """Whether the font has all letters of `text`; the others would be boxes."""
    return _letters().issuperset(map(ord, text))


@cache
def _letters() -> frozenset[int]:
    """The code points of `STYLE`'s font."""
    return frozenset(FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf").get_charmap())


@contextmanager
def _apply_style() -> Iterator[None]:
    with matplotlib.style.context(["default", STYLE]):
        yield
