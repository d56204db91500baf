"""The picture of a range test."""

from pathlib import Path

from simclr.lr_range.range_test import Curve
from simclr.lr_range.suggestion import Suggestion, smooth, two_digits
from simclr.report.figure import COLORS, open_figure

_LAST = 8
"""Steps before a divergence whose losses, which may be huge, do not decide the height of the picture."""


def draw(path: Path, curve: Curve, suggestion: Suggestion, title: str) -> None:
    """Write the PNG file `path`: the loss over the rate, as it was and smoothed, the named rate and the divergence."""
    smoothed = smooth(curve.losses)
    with open_figure(path, 900, 560) as figure:
        axes = figure.add_subplot(title=title, xlabel="pretrain.optimizer.lr", ylabel="loss", xscale="log")
        axes.grid()
        axes.xaxis.set_major_formatter("{x:g}")  # the default is a formula, which this style does not parse
        axes.plot(curve.rates, curve.losses, color="0.8", linewidth=0.8, label="loss of a step")
        axes.plot(curve.rates, smoothed, color=COLORS[0], linewidth=1.8, label="smoothed")
        if suggestion.rate is not None:
            axes.axvline(suggestion.rate, color=COLORS[4], linewidth=1.2, label=f"named: {two_digits(suggestion.rate)}")
        if curve.diverged:
            last = curve.rates[-1]
            axes.axvline(last, color=COLORS[2], linewidth=1.2, linestyle="--", label=f"diverges: {two_digits(last)}")
        before = curve.losses[:-_LAST]
        if curve.diverged and len(before) > 1:
            margin = 0.05 * (before.max() - before.min())
            axes.set_ylim(before.min() - margin, before.max() + margin)
        axes.legend()
