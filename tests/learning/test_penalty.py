"""Penalties against plain loops over numbers."""

import pytest
import torch
from torch import Tensor

from simclr.learning.penalty import PenaltyParams, Strengths, penalties

NONE = Strengths(l2=0.0, smooth_l1=0.0)


def smooth_l1(value: float) -> float:
    return value * value / 2 if abs(value) < 1 else abs(value) - 0.5


def numbers(*shape: int) -> Tensor:
    """Some beyond 1, on either side."""
    values = 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    return values.requires_grad_()


H = numbers(5, 4)
GROUPS = [
    {"params": [numbers(3, 2), numbers(2, 3, 1, 1)], "decay": True},
    {"params": [numbers(7)], "decay": False},
    {"params": [numbers(2, 2)], "decay": True, "lr": 0.1},
]
DECAYED = [
    value for group in (GROUPS[0], GROUPS[2]) for weight in group["params"] for value in weight.flatten().tolist()
]
VALUES = H.flatten().tolist()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (PenaltyParams(representations=Strengths(l2=2.0, smooth_l1=0.0), weights=NONE),
         [2 * sum(value**2 for value in VALUES) / len(VALUES)]),
        (PenaltyParams(representations=Strengths(l2=0.0, smooth_l1=3.0), weights=NONE),
         [3 * sum(map(smooth_l1, VALUES)) / len(VALUES)]),
        (PenaltyParams(representations=NONE, weights=Strengths(l2=2.0, smooth_l1=0.0)),
         [2 * sum(value**2 for value in DECAYED) / 2]),
        (PenaltyParams(representations=NONE, weights=Strengths(l2=0.0, smooth_l1=3.0)),
         [3 * sum(map(smooth_l1, DECAYED))]),
        (PenaltyParams(representations=Strengths(l2=1.0, smooth_l1=0.5), weights=Strengths(l2=2.0, smooth_l1=0.1)),
         [sum(value**2 for value in VALUES) / len(VALUES), sum(map(smooth_l1, VALUES)) / len(VALUES) / 2,
          sum(value**2 for value in DECAYED), sum(map(smooth_l1, DECAYED)) / 10]),
    ],
)  # fmt: skip
def test_penalties_are_what_they_say(parameters: PenaltyParams, expected: list[float]) -> None:
    terms = penalties(parameters, H, GROUPS)
    assert [term.item() for term in terms] == pytest.approx(expected, rel=1e-5)
    assert all(term.shape == () and term.dtype == torch.float32 for term in terms)


def test_of_strength_0_there_is_none() -> None:
    assert penalties(PenaltyParams(representations=NONE, weights=NONE), H, GROUPS) == []


def test_gradients_of_weights_are_the_weights_and_at_most_1() -> None:
    weight = numbers(6, 5)
    groups = [{"params": [weight], "decay": True}]
    for strengths, expected in (
        (Strengths(l2=0.3, smooth_l1=0.0), 0.3 * weight.detach()),
        (Strengths(l2=0.0, smooth_l1=0.3), 0.3 * weight.detach().clamp(-1, 1)),
    ):
        [term] = penalties(PenaltyParams(representations=NONE, weights=strengths), H, groups)
        torch.testing.assert_close(torch.autograd.grad(term, weight)[0], expected)
    assert weight.abs().max() > 1


def test_representations_in_bf16_are_averaged_in_float32() -> None:
    h = torch.full((1000, 3), 1.0, dtype=torch.bfloat16)
    parameters = PenaltyParams(representations=Strengths(l2=0.125, smooth_l1=0.25), weights=NONE)
    assert [term.item() for term in penalties(parameters, h, [])] == [0.125, 0.125]
