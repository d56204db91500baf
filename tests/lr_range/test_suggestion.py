"""The rate that a curve names, on made-up curves over six powers of ten, 50 steps each."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from simclr.lr_range.suggestion import has_diverged, smooth, suggest, two_digits

STEPS = 300
RATES = np.geomspace(1e-4, 100, STEPS)
DECADES = np.log10(RATES)
COLLAPSED = math.log(511)
"""NT-Xent of a collapsed encoder at a batch of 256."""


def noise(seed: int = 0) -> NDArray[np.float64]:
    """That of a step of the default run."""
    return np.random.default_rng(seed).normal(0, 0.1, STEPS)


def fall(middle: float, width: float = 0.3) -> NDArray[np.float64]:
    """From 0 down to -1 around the rate 10 ** middle."""
    return -1 / (1 + np.exp(-(DECADES - middle) / width))


def with_plateau() -> NDArray[np.float64]:
    """What BatchNorm makes: no rate is too high."""
    return 6.4 + 2.5 * fall(-0.5)


def convex() -> NDArray[np.float64]:
    """The lowest loss is at a rate of 1, halfway up again at 10 ** 1.4."""
    return np.minimum(6.4, 4 + 1.2 * DECADES**2)


def collapsing() -> NDArray[np.float64]:
    """Learns until about a rate of 1, and is thrown back to a collapsed encoder at 10."""
    return COLLAPSED + 1.5 * fall(-1) * (1 + fall(1, 0.05))


def test_smoothing_is_a_mean_weighted_by_distance() -> None:
    losses = noise()[:40]
    for step, value in enumerate(smooth(losses)):
        weights = [math.exp(-((other - step) ** 2) / (2 * 8**2)) for other in range(40)]
        assert value == pytest.approx(sum(map(float.__mul__, weights, losses.tolist())) / sum(weights))


def first_at(curve: NDArray[np.float64], share: float) -> float:
    """The first rate at which a curve without noise has done this share of its fall."""
    lowest = min(curve)
    for rate, loss in zip(RATES, curve, strict=True):
        if curve[0] - loss >= share * (curve[0] - lowest):
            return float(rate)
    raise AssertionError


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("made", [with_plateau, convex, collapsing])
def test_the_named_rate_is_where_nine_tenths_of_the_fall_are_done(
    made: Callable[[], NDArray[np.float64]], seed: int
) -> None:
    rate = suggest(RATES, made() + noise(seed), diverged=False).rate
    assert rate is not None
    assert 1 / 1.6 < rate / first_at(made(), 0.9) < 1.6  # ten steps


def test_what_comes_after_the_lowest_loss_names_no_other_rate() -> None:
    losses = convex() + noise()
    assert suggest(RATES[:220], losses[:220], diverged=True) == suggest(RATES, losses, diverged=False)


@pytest.mark.parametrize("seed", range(5))
def test_a_flat_curve_names_none_and_does_not_diverge(seed: int) -> None:
    losses = COLLAPSED + noise(seed)
    assert not any(has_diverged(losses[:step]) for step in range(1, STEPS + 1, 3))
    assert suggest(RATES, losses, diverged=False).rate is None
    reason = suggest(RATES, losses, diverged=False).reason
    assert reason.startswith("from 0.0001 to 100 the loss falls by no more than its noise; ")


def test_a_curve_that_only_rises_names_none() -> None:
    losses = 2.3 - 50 * fall(1.5) + noise()
    assert suggest(RATES, losses, diverged=False).rate is None


def test_one_loss_names_none() -> None:
    assert suggest(RATES[:1], np.array([6.4]), diverged=True).rate is None


def test_a_fall_that_goes_on_at_the_highest_rate_names_none() -> None:
    losses = 6.4 - np.maximum(0, DECADES) + noise()
    assert suggest(RATES, losses, diverged=False).reason == "the loss still falls at the highest rate, 100"


def test_a_fall_that_a_divergence_ends_names_a_rate() -> None:
    losses = 6.4 - np.maximum(0, DECADES) + noise()
    assert suggest(RATES, losses, diverged=True).rate is not None


@pytest.mark.parametrize("seed", range(5))
def test_a_collapse_is_a_divergence_once_half_of_the_fall_is_lost(seed: int) -> None:
    losses = collapsing() + noise(seed)
    step = next(step for step in range(1, STEPS + 1) if has_diverged(losses[:step]))
    assert 10 < RATES[step - 1] < 10 * 1.6


@pytest.mark.parametrize("seed", range(5))
def test_a_plateau_is_no_divergence(seed: int) -> None:
    losses = with_plateau() + noise(seed)
    assert not any(has_diverged(losses[:step]) for step in range(1, STEPS + 1, 3))


def test_a_loss_that_explodes_ends_the_test_at_once() -> None:
    losses = with_plateau() + noise()
    assert has_diverged(np.append(losses[:200], 1e6))


@pytest.mark.parametrize(
    ("rate", "words"), [(1e-4, "0.0001"), (3.1311, "3.1"), (2.98, "3"), (100.0, "100"), (1e-6, "1e-06"), (316.2, "320")]
)
def test_rates_are_written_with_two_digits(rate: float, words: str) -> None:
    assert two_digits(rate) == words
