"""NT-Xent against equation 1 of Chen et al. 2020 in loops, and several ranks against one."""

import math

import pytest
import torch
import torch.nn.functional as F
from ranks import on_ranks
from torch import Tensor

from simclr import nt_xent as module
from simclr.distributed import Session
from simclr.nt_xent import nt_xent, positives

ALONE = Session(rank=0, world=1, device=torch.device("cpu"))


def loops(z: Tensor, temperature: float) -> Tensor:
    """Equation 1, for every ordered positive pair (i, j), averaged; nothing clever."""
    count = len(z) // 2
    losses = []
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        similarities = [F.cosine_similarity(z[i], z[k], dim=0) / temperature for k in range(2 * count)]
        denominator = sum(torch.exp(similarities[k]) for k in range(2 * count) if k != i)
        losses.append(-torch.log(torch.exp(similarities[j]) / denominator))
    return torch.stack(losses).mean()


def projections(rows: int, dimension: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("block", [1, 7, 30, 10_000])  # elements: blocks of one anchor, uneven ones, a single one
def test_value_and_gradient_are_those_of_the_paper(
    temperature: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._BLOCK_ELEMENTS, "cpu", block)
    ours, theirs = projections(10).requires_grad_(), projections(10).requires_grad_()
    loss, expected = nt_xent(ours, temperature, ALONE), loops(theirs, temperature)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_the_derivative() -> None:
    z = projections(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.3, ALONE), z)


def test_positives_are_the_other_views() -> None:
    assert positives(torch.arange(6.0)[:, None]).flatten().tolist() == [3, 4, 5, 0, 1, 2]


def test_a_small_temperature_does_not_overflow() -> None:
    z = projections(64).float().requires_grad_()
    loss = nt_xent(z, 0.001, ALONE)
    loss.backward()
    assert math.isfinite(loss.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_half_precision_is_compared_in_single() -> None:
    z = projections(256, 32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z, 0.1, ALONE)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nt_xent(z.float(), 0.1, ALONE), rtol=0, atol=0)


def test_equal_views_of_orthogonal_samples_have_the_loss_of_algebra() -> None:
    z = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    expected = math.log(math.exp(1 / 0.5) + 14) - 1 / 0.5  # one positive at similarity 1, 14 negatives at 0
    assert nt_xent(z, 0.5, ALONE).item() == pytest.approx(expected, abs=1e-12)


def share(session: Session, batch: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient on one rank, with its contiguous part of the samples of `batch` (2, B, d)."""
    own = batch.chunk(session.world, dim=1)[session.rank].flatten(0, 1).requires_grad_()
    loss = nt_xent(own, temperature, session)
    loss.backward()
    assert own.grad is not None
    return loss.detach(), own.grad.view(2, -1, own.shape[1])


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(world: int) -> None:
    batch = projections(24).view(2, 12, 5)
    whole = batch.flatten(0, 1).clone().requires_grad_()
    expected = loops(whole, 0.2)
    expected.backward()
    results = on_ranks(world, share, batch, 0.2)
    torch.testing.assert_close(torch.stack([loss for loss, _ in results]).mean(), expected.detach())
    # DDP divides the sum over ranks by their number
    gradient = torch.cat([own for _, own in results], dim=1) / world
    assert whole.grad is not None
    torch.testing.assert_close(gradient.flatten(0, 1), whole.grad, rtol=1e-11, atol=1e-13)
