"""NT-Xent in single precision, beside the contract of all losses in tests/contracts/test_losses.py."""

import math

import pytest
import torch

from simclr.losses import nt_xent
from tests.contracts.test_losses import projections
from tests.helpers.ranks import ALONE


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.03])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5])
def test_single_precision_keeps_its_digits(noise: float, temperature: float) -> None:
    """However well the views are aligned: where the loss is 1e-28, the log-sum-exp and the positive are equal."""
    first, other = projections(64, 32), projections(64, 32, seed=1)
    z = torch.cat([first, first + noise * other]).float()
    found, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    loss, expected = (
        nt_xent.loss(found, 2, nt_xent.Params(temperature=temperature), ALONE),
        nt_xent.loss(exact, 2, nt_xent.Params(temperature=temperature), ALONE),
    )
    loss.backward()
    expected.backward()
    assert found.grad is not None
    assert exact.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (found.grad - exact.grad).norm() < 1e-5 * exact.grad.norm()


def test_half_precision_is_compared_in_single() -> None:
    z = projections(256, 32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent.loss(z, 2, nt_xent.Params(temperature=0.1), ALONE)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nt_xent.loss(z.float(), 2, nt_xent.Params(temperature=0.1), ALONE), rtol=0, atol=0)


def test_equal_views_of_orthogonal_samples_have_the_loss_of_algebra() -> None:
    z = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    expected = math.log(math.exp(1 / 0.5) + 14) - 1 / 0.5  # one positive at similarity 1, 14 negatives at 0
    assert nt_xent.loss(z, 2, nt_xent.Params(temperature=0.5), ALONE).item() == pytest.approx(expected, abs=1e-12)
