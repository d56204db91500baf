"""Which rate a curve of losses over rising rates names, and where it diverges.

Smith (2017, section 3.3) reads two rates off the curve: where learning begins, and where it slows, becomes ragged or
falls back. The second is the peak for a schedule that warms up and decays, as `schedule.warmup_cosine` does. Here it is
the rate at which the loss has done 90 % of its fall.

The steepest point, and a tenth of the rate of the lowest loss, would be other rules: docs/design.md has the figures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""Rates or losses by step, (N,)."""
_WIDTH = 8
"""Standard deviation of the smoothing, in steps."""
_NOISE = 4
"""The loss falls if it does so by this many medians of the distance between losses and smoothed ones."""
_SHARE = 0.9
_END = 0.1
"""A fall of which the last tenth takes no more than this share of the steps, at the end, may go on at higher rates."""


@dataclass(frozen=True)
class Suggestion:
    """The named rate, or None, and why."""

    rate: float | None
    reason: str


def two_digits(rate: float) -> str:
    """`rate` to two digits, about the distance of two steps: 0.0001, 3.1, 100."""
    return f"{float(f'{rate:.2g}'):g}"


def smooth(losses: Values) -> Values:
    """The means of `losses` with Gaussian weights around each step: unlike running means they do not lag."""
    reach = 8 * _WIDTH
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _WIDTH) ** 2)
    total, count = (np.convolve(row, weights)[reach:-reach] for row in (losses, np.ones(len(losses))))
    smoothed: Values = total / count
    return smoothed


def has_diverged(losses: Values) -> bool:
    """Whether the smoothed loss has come back by half of its fall.

    The common sign, 4 times the lowest loss, never appears in contrastive learning: of a collapsed encoder NT-Xent is
    log(2 N - 1), hardly more than of an untrained one.
    """
    smoothed = smooth(losses)
    fall = _fall(losses, smoothed)
    return fall is not None and bool(smoothed[-1] > sum(fall) / 2)


def suggest(rates: Values, losses: Values, diverged: bool) -> Suggestion:
    """Name the first of the rising `rates` at which the smoothed loss has done 90 % of its fall.

    None is named where the loss falls by no more than its noise, or still falls at the last rate and has not
    `diverged`.
    """
    smoothed = smooth(losses)
    fall = _fall(losses, smoothed)
    if fall is None:
        both = f"from {two_digits(rates[0])} to {two_digits(rates[-1])}"
        return Suggestion(
            None, f"{both} the loss falls by no more than its noise; more steps or larger batches may help"
        )
    top, lowest = fall
    start = int(smoothed[: smoothed.argmin() + 1].argmax())
    step = start + int(np.argmax(smoothed[start:] <= top - _SHARE * (top - lowest)))
    if not diverged and step >= (1 - _END) * len(rates):
        return Suggestion(None, f"the loss still falls at the highest rate, {two_digits(rates[-1])}")
    return Suggestion(float(rates[step]), f"the loss has done {100 * _SHARE:.0f} % of its fall there")


def _fall(losses: Values, smoothed: Values) -> tuple[float, float] | None:
    """The smoothed loss at the top before its lowest point, and there; None if the two differ by noise alone."""
    lowest = float(smoothed.min())
    top = float(smoothed[: smoothed.argmin() + 1].max())
    noise = float(np.median(np.abs(losses - smoothed)))
    return (top, lowest) if top - lowest > _NOISE * noise else None
