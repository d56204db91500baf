"""The mean and the standard deviation of an image's three channels, as files hold them."""

from typing import Any

import numpy as np

_SMALLEST = 1e-10
"""Deviation; by less, the squares of normalised pixels leave the range of float32."""


def can_normalise(mean: Any, std: Any) -> bool:
    """Whether images can be normalised by these, in float32: three finite numbers each, deviations above nearly 0.

    Raises:
        ValueError: they are of different lengths.
    """
    values = np.array([mean, std])
    if values.shape != (2, 3) or values.dtype.kind not in "fi" or any(type(value) is bool for value in (*mean, *std)):
        return False
    with np.errstate(over="ignore"):
        channels = values.astype(np.float32)
    return bool(np.isfinite(channels).all() and (channels[1] >= _SMALLEST).all())
