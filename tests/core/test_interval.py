"""Wilson's interval against scipy's, and against a bootstrap."""

import numpy as np
import pytest
from scipy.stats import binomtest

from simclr.core.interval import wilson


@pytest.mark.parametrize(
    ("right", "count"), [(0, 1), (1, 1), (0, 360), (355, 360), (360, 360), (50, 100), (9000, 10_000)]
)
def test_the_interval_is_scipys(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert 0 <= wilson(right, count)[0] <= right / count <= wilson(right, count)[1] <= 1


def test_the_interval_is_about_that_of_a_bootstrap() -> None:
    shares = np.random.default_rng(0).binomial(1000, 0.85, 20_000) / 1000
    assert wilson(850, 1000) == pytest.approx(np.quantile(shares, [0.025, 0.975]).tolist(), abs=0.002)
