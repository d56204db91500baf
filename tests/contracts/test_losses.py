"""What every loss of `simclr.losses` keeps: a new file is tried before its author has written a test.

All that a loss needs is its definition in loops, in `LOOPS`.
"""

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.core import options
from simclr.core.options import Option
from simclr.distributed import pairwise
from simclr.distributed.session import Session
from tests.helpers.ranks import ALONE, on_ranks
from tests.helpers.recipes import SHIPPED

LOOPS: dict[str, Callable[[Tensor, float], Tensor]] = {}
"""By the name of a loss: of z (2n, d) and tau, the mean over all anchors by the paper's words; nothing clever."""


def in_loops(loss: Callable[[Tensor, Tensor, list[Tensor]], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """The mean over all anchors of `loss`, which is given exp(s / tau) of its positive, of itself and of all others."""

    def mean(z: Tensor, temperature: float) -> Tensor:
        rows = len(z)
        values = []
        for i in range(rows):
            j = (i + rows // 2) % rows
            terms = [torch.exp(F.cosine_similarity(z[i], z[k], dim=0) / temperature) for k in range(rows)]
            values.append(loss(terms[j], terms[i], [terms[k] for k in range(rows) if k not in (i, j)]))
        return torch.stack(values).mean()

    return mean


LOOPS["nt_xent"] = in_loops(lambda positive, _, negatives: -torch.log(positive / (positive + sum(negatives))))
LOOPS["decoupled"] = in_loops(lambda positive, _, negatives: -torch.log(positive / sum(negatives)))


NAMES = options.names("losses")


def loss_at(name: str, temperature: float) -> Callable[[Tensor, Session], Tensor]:
    """The loss `name` with the other parameters of params.yaml."""
    sections = {name: SHIPPED["losses"][name] | {"temperature": temperature}}
    option = options.checked("losses", name, {"losses": sections}, "test")
    return functools.partial(called, option)


def called(option: Option, z: Tensor, session: Session) -> Tensor:
    value: Tensor = option.module.loss(z, option.parameters, session)
    return value


def projections(rows: int, dimension: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_loss_has_a_definition_in_loops() -> None:
    assert sorted(LOOPS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("block", [1, 7, 30, 10_000])  # elements: blocks of one anchor, uneven ones, a single one
def test_value_and_gradient_are_those_of_the_loops(
    name: str, temperature: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
    ours, theirs = projections(10).requires_grad_(), projections(10).requires_grad_()
    value, expected = loss_at(name, temperature)(ours, ALONE), LOOPS[name](theirs, temperature)
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_derivative(name: str) -> None:
    z = projections(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss_at(name, 0.3)(z, ALONE), z)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 1 / 60, 100.0])
@pytest.mark.parametrize("collapsed", [False, True])
def test_no_temperature_overflows(name: str, temperature: float, dtype: torch.dtype, collapsed: bool) -> None:
    z = (torch.ones(64, 5) if collapsed else projections(64)).to(dtype).requires_grad_()
    value = loss_at(name, temperature)(z, ALONE)
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


def share(session: Session, batch: Tensor, name: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient on one rank, with its contiguous part of the samples of `batch` (2, B, d)."""
    own = batch.chunk(session.world_size, dim=1)[session.rank].flatten(0, 1).requires_grad_()
    value = loss_at(name, temperature)(own, session)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad.view(2, -1, own.shape[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(name: str, world: int, temperature: float) -> None:
    batch = projections(24).view(2, 12, 5)
    whole = batch.flatten(0, 1).clone().requires_grad_()
    expected = LOOPS[name](whole, temperature)
    expected.backward()
    results = on_ranks(world, share, batch, name, temperature)
    torch.testing.assert_close(torch.stack([value for value, _ in results]).mean(), expected.detach())
    # DDP divides the sum over ranks by their number
    gradient = torch.cat([own for _, own in results], dim=1) / world
    assert whole.grad is not None
    torch.testing.assert_close(gradient.flatten(0, 1), whole.grad, rtol=1e-11, atol=1e-13)
