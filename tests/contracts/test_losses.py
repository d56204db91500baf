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

LOOPS: dict[str, Callable[[Tensor, int, float], Tensor]] = {}
"""By the name of a loss: of z (V n, d), V and tau, the mean over all anchors by the paper's words; nothing clever."""


def in_loops(loss: Callable[[Tensor, list[Tensor], list[Tensor]], Tensor]) -> Callable[[Tensor, int, float], Tensor]:
    """The mean over all anchors, and over the positives of each, of `loss`, which is given exp(s / tau) of the
    positive, of all other keys, and of those among them that are negatives."""

    def mean(z: Tensor, views: int, temperature: float) -> Tensor:
        rows, samples = len(z), len(z) // views
        values = []
        for i in range(rows):
            terms = [torch.exp(F.cosine_similarity(z[i], z[k], dim=0) / temperature) for k in range(rows)]
            negatives = [terms[k] for k in range(rows) if k % samples != i % samples]
            for j in range(rows):
                if j != i and j % samples == i % samples:
                    others = [terms[k] for k in range(rows) if k not in (i, j)]
                    values.append(loss(terms[j], others, negatives))
        return torch.stack(values).mean()

    return mean


LOOPS["nt_xent"] = in_loops(lambda positive, others, _: -torch.log(positive / (positive + sum(others))))
LOOPS["decoupled"] = in_loops(lambda positive, _, negatives: -torch.log(positive / sum(negatives)))


NAMES = options.names("losses")


def loss_at(name: str, temperature: float) -> Callable[[Tensor, int, Session], Tensor]:
    """The loss `name` with the other parameters of params.yaml."""
    sections = {name: SHIPPED["losses"][name] | {"temperature": temperature}}
    option = options.checked("losses", name, {"losses": sections}, "test")
    return functools.partial(called, option)


def called(option: Option, z: Tensor, views: int, session: Session) -> Tensor:
    value: Tensor = option.module.loss(z, views, option.parameters, session)
    return value


def projections(rows: int, dimension: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_loss_has_a_definition_in_loops() -> None:
    assert sorted(LOOPS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("block", [1, 7, 30, 10_000])  # elements: blocks of one anchor, uneven ones, a single one
def test_value_and_gradient_are_those_of_the_loops(
    name: str, views: int, temperature: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pairwise._BLOCK_ELEMENTS, "cpu", block)
    ours, theirs = (projections(4 * views).requires_grad_() for _ in range(2))
    value, expected = loss_at(name, temperature)(ours, views, ALONE), LOOPS[name](theirs, views, temperature)
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("views", [2, 3])
def test_the_gradient_is_the_derivative(name: str, views: int) -> None:
    z = projections(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss_at(name, 0.3)(z, views, ALONE), z)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 1 / 60, 100.0])
@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("views", [2, 4])
def test_no_temperature_overflows(
    name: str, views: int, temperature: float, dtype: torch.dtype, collapsed: bool
) -> None:
    z = (torch.ones(64, 5) if collapsed else projections(64)).to(dtype).requires_grad_()
    value = loss_at(name, temperature)(z, views, ALONE)
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


def share(session: Session, batch: Tensor, name: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient on one rank, with its contiguous part of the samples of `batch` (V, B, d)."""
    own = batch.chunk(session.world_size, dim=1)[session.rank].flatten(0, 1).requires_grad_()
    value = loss_at(name, temperature)(own, len(batch), session)
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad.view(len(batch), -1, own.shape[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize(("views", "temperature"), [(2, 0.01), (2, 0.2), (3, 0.2)])
def test_ranks_together_have_the_loss_and_gradient_of_one_process(
    name: str, world: int, views: int, temperature: float
) -> None:
    batch = projections(12 * views).view(views, 12, 5)
    whole = batch.flatten(0, 1).clone().requires_grad_()
    expected = LOOPS[name](whole, views, temperature)
    expected.backward()
    results = on_ranks(world, share, batch, name, temperature)
    torch.testing.assert_close(torch.stack([value for value, _ in results]).mean(), expected.detach())
    # DDP divides the sum over ranks by their number
    gradient = torch.cat([own for _, own in results], dim=1) / world
    assert whole.grad is not None
    torch.testing.assert_close(gradient.flatten(0, 1), whole.grad, rtol=1e-11, atol=1e-13)
