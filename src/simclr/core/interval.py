"""Confidence intervals."""

import math

_NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `right` of `count` trials were successes (Wilson 1927).

    It is close to that of a bootstrap over the trials, needs no draws, and stays sensible at shares of 0 and 1.
    """
    share, z = right / count, _NORMAL**2 / count
    center, half = share + z / 2, math.sqrt(z * share * (1 - share) + z**2 / 4)
    return max(0.0, (center - half) / (1 + z)), min(1.0, (center + half) / (1 + z))


def limits(name: str, accuracy: float, images: int) -> dict[str, float]:
    """The 95 % interval of an `accuracy` in percent over so many `images`: the metrics <name>_low and <name>_high."""
    low, high = wilson(round(accuracy * images / 100), images)
    return {f"{name}_low": 100 * low, f"{name}_high": 100 * high}
