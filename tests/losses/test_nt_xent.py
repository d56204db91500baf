"""NT-Xent in single precision, beside the contract of all losses in tests/contracts/test_losses.py."""

import math

import pytest
import torch
from torch import Tensor

from tests.contracts.test_losses import batch_of, option, projections, value_of


def nt_xent_of(z: Tensor, temperature: float) -> Tensor:
    return value_of(option("nt_xent", temperature=temperature), z, batch_of(len(z) // 2, 2))


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.03])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5])
def test_single_precision_keeps_its_digits(noise: float, temperature: float) -> None:
    """However well the views are aligned: where the loss is 1e-28, the log-sum-exp and the positive are equal."""
    first, other = projections(64, 32), projections(64, 32, seed=1)
    z = torch.cat([first, first + noise * other]).float()
    found, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    loss, expected = nt_xent_of(found, temperature), nt_xent_of(exact, temperature)
    loss.backward()
    expected.backward()
    assert found.grad is not None
    assert exact.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (found.grad - exact.grad).norm() < 1e-5 * exact.grad.norm()


def test_half_precision_is_compared_in_single() -> None:
    z = projections(256, 32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent_of(z, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nt_xent_of(z.float(), 0.1), rtol=0, atol=0)


def test_equal_views_of_orthogonal_samples_have_the_loss_of_algebra() -> None:
    z = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    expected = math.log(math.exp(1 / 0.5) + 14) - 1 / 0.5  # one positive at similarity 1, 14 negatives at 0
    assert nt_xent_of(z, 0.5).item() == pytest.approx(expected, abs=1e-12)
