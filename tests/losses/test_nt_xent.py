"""NT-Xent against equation 1 of Chen et al. 2020 in loops, and several ranks against one."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.distributed.session import Session
from simclr.losses import nt_xent as module
from simclr.losses.nt_xent import nt_xent, positives
from tests.helpers.fake_memory import CUDA, MIB, counted
from tests.helpers.ranks import ALONE, on_ranks


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


@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 1 / 60, 100.0])
@pytest.mark.parametrize("collapsed", [False, True])
def test_no_temperature_overflows(temperature: float, dtype: torch.dtype, collapsed: bool) -> None:
    z = (torch.ones(64, 5) if collapsed else projections(64)).to(dtype).requires_grad_()
    loss = nt_xent(z, temperature, ALONE)
    loss.backward()
    assert math.isfinite(loss.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("noise", [1.0, 0.3, 0.03])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5])
def test_single_precision_keeps_its_digits(noise: float, temperature: float) -> None:
    """However well the views are aligned: where the loss is 1e-28, the log-sum-exp and the positive are equal."""
    first, other = projections(64, 32), projections(64, 32, seed=1)
    z = torch.cat([first, first + noise * other]).float()
    found, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    loss, expected = nt_xent(found, temperature, ALONE), nt_xent(exact, temperature, ALONE)
    loss.backward()
    expected.backward()
    assert found.grad is not None
    assert exact.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (found.grad - exact.grad).norm() < 1e-5 * exact.grad.norm()


def test_its_products_are_not_those_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    blocks = module._blocks

    def watched(*arguments: Any) -> Iterator[Any]:
        used.append(torch.backends.cuda.matmul.fp32_precision)
        return blocks(*arguments)

    monkeypatch.setattr(module, "_blocks", watched)
    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        nt_xent(projections(8).requires_grad_(), 0.1, ALONE).backward()
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    assert used == ["ieee", "ieee"]


class Context:
    """Of an autograd function: its engine knows no device that is not there."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_on_a_gpu_8192_samples_take_a_sixteenth_of_the_dense_form(temperature: float) -> None:
    """Which holds the similarities, their log-softmax and its gradient at once."""
    rows, context = 2 * 8192, Context()
    with counted() as peak:
        z = torch.empty(rows, 128, device=CUDA)
        module._NTXent.forward(context, z, temperature, Session(rank=0, world=1, device=CUDA))
        module._NTXent.backward(context, torch.ones((), device=CUDA))
    dense = 3 * rows**2 * 4
    assert 64 * MIB < peak.gpu < dense / 16


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


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(world: int, temperature: float) -> None:
    batch = projections(24).view(2, 12, 5)
    whole = batch.flatten(0, 1).clone().requires_grad_()
    expected = loops(whole, temperature)
    expected.backward()
    results = on_ranks(world, share, batch, temperature)
    torch.testing.assert_close(torch.stack([loss for loss, _ in results]).mean(), expected.detach())
    # DDP divides the sum over ranks by their number
    gradient = torch.cat([own for _, own in results], dim=1) / world
    assert whole.grad is not None
    torch.testing.assert_close(gradient.flatten(0, 1), whole.grad, rtol=1e-11, atol=1e-13)
