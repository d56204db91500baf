import math

import pytest

from simclr.learning.schedule import scaled_lr, warmup_cosine


def test_the_learning_rate_scales_with_the_batch() -> None:
    assert scaled_lr(0.3, 4096, "linear") == pytest.approx(4.8)  # Chen et al. 2020, appendix B.1
    assert scaled_lr(0.075, 4096, "sqrt") == pytest.approx(4.8)
    assert scaled_lr(0.3, 4096, "none") == 0.3


def test_warm_up_is_linear_and_ends_at_the_peak() -> None:
    assert [warmup_cosine(step, 100, 4) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_cosine_falls_towards_zero_and_is_half_way_down_in_the_middle() -> None:
    factors = [warmup_cosine(step, 110, 10) for step in range(10, 110)]
    assert factors == sorted(factors, reverse=True)
    assert factors[50] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 99 / 100)))


def test_a_run_may_be_all_warm_up() -> None:
    assert warmup_cosine(9, 10, 10) == 1.0
