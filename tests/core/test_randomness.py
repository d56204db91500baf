import numpy as np
import pytest
import torch

from simclr.core.randomness import hashes, integers, permutation, reaches, uniform

MASK = (1 << 64) - 1


def splitmix(state: int) -> int:
    """The finaliser of SplitMix64 in Python's integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def chained(*counters: int) -> int:
    state = 0
    for counter in counters:
        state = splitmix(((state ^ counter) + 0x9E3779B97F4A7C15) & MASK)
    return state


def test_the_hash_is_splitmix64_chained_over_the_counters() -> None:
    assert int(hashes(0)) == 0xE220A8397B1DCDAF  # the first output of SplitMix64 seeded with 0, as published
    counters = np.array([0, 1, 2, 10**12])
    found = hashes(7, counters, 3)
    assert [int(value) for value in found] == [chained(7, int(counter), 3) for counter in counters]


def test_draws_do_not_depend_on_what_else_is_drawn() -> None:
    together = uniform(5, np.arange(1000)[:, None], np.arange(4)[None, :])
    assert together.shape == (1000, 4)
    assert uniform(5, 123, 2) == together[123, 2]
    assert (uniform(5, np.arange(500, 510), 1) == together[500:510, 1]).all()


def test_draws_are_uniform_and_uncorrelated() -> None:
    draws = uniform(0, np.arange(100_000)[:, None], np.arange(2))
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=50, range=(0, 1))
    expected = draws.size / 50
    assert ((counts - expected) ** 2 / expected).sum() < 100  # chi-squared, 49 degrees of freedom: p ~ 2e-5
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.02
    assert abs(np.corrcoef(draws[1:, 0], draws[:-1, 0])[0, 1]) < 0.02


@pytest.mark.parametrize("threshold", [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
def test_on_a_device_draws_reach_a_threshold_where_they_do_on_the_host(threshold: float) -> None:
    counters = np.arange(50)
    keys = hashes(4, np.arange(1000)[:, None], 2)
    assert (keys.view(np.int64) < 0).any()  # bits that a shift of int64 would repeat
    found = reaches(threshold, torch.from_numpy(keys.view(np.int64)), torch.from_numpy(counters))
    assert np.array_equal(found.numpy(), uniform(4, np.arange(1000)[:, None], 2, counters) >= threshold)


@pytest.mark.parametrize("bound", [1, 2, 7, 1000, (1 << 31) - 1])
def test_integers_on_a_device_are_the_high_bits_times_the_bound(bound: int) -> None:
    counters = np.array([-2, -1, 0, 1, 5, 10**12])
    keys = hashes(4, np.arange(1000)[:, None], 2)
    found = integers(bound, torch.from_numpy(keys.view(np.int64)), torch.from_numpy(counters)).numpy()
    high = hashes(4, np.arange(1000)[:, None], 2, counters) >> np.uint64(33)
    assert found.tolist() == [[int(bits) * bound >> 31 for bits in row] for row in high]


def test_integers_are_all_drawn_as_often() -> None:
    keys = torch.from_numpy(hashes(9, np.arange(1000)[:, None]).view(np.int64))
    counts = torch.bincount(integers(7, keys, torch.arange(100)).flatten())
    assert len(counts) == 7
    expected = 100_000 / 7
    assert ((counts - expected) ** 2 / expected).sum() < 30  # chi-squared, 6 degrees of freedom: p ~ 4e-5


def test_a_draw_reaches_itself_and_nothing_above() -> None:
    counters = np.arange(200)
    key = hashes(4).view(np.int64)
    for counter, draw in zip(counters, uniform(4, counters), strict=True):
        at = [draw, np.nextafter(draw, 1)]
        found = [reaches(level, torch.from_numpy(key), torch.tensor(int(counter))).item() for level in at]
        assert found == [True, False]


def test_a_permutation_is_one_and_changes_with_seed_and_epoch() -> None:
    order = permutation(1000, 3, 1)
    assert sorted(order) == list(range(1000))
    assert (order == permutation(1000, 3, 1)).all()
    assert (order != permutation(1000, 3, 2)).any()
    assert (order != permutation(1000, 4, 1)).any()
