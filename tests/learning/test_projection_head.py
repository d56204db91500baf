import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.core.randomness import hashes, uniform
from simclr.learning import projection_head
from simclr.learning.projection_head import Head, HeadParams


def head(layers: int = 2, batch_norm: bool = True, dropout: float = 0.0) -> Head:
    parameters = HeadParams(layers=layers, hidden=7, output=4, batch_norm=batch_norm, dropout=dropout)
    return projection_head.build(parameters, dimension=5)


def keys(count: int, epoch: int = 1) -> Tensor:
    return torch.from_numpy(hashes(3, epoch, np.arange(count), 1, 9).view(np.int64))


def modules(model: Head) -> list[nn.Module]:
    return [*model.hidden, *model.output]


HIDDEN = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
PLAIN = [nn.Linear, nn.ReLU]


@pytest.mark.parametrize(
    ("layers", "batch_norm", "expected"),
    [
        (2, True, [*HIDDEN, nn.Linear, nn.BatchNorm1d]),
        (3, True, [*HIDDEN, *HIDDEN, nn.Linear, nn.BatchNorm1d]),
        (2, False, [*PLAIN, nn.Linear]),
        (3, False, [*PLAIN, *PLAIN, nn.Linear]),
    ],
)
def test_the_layers_are_the_papers(layers: int, batch_norm: bool, expected: list[type[nn.Module]]) -> None:
    model = head(layers, batch_norm)
    assert [type(module) for module in modules(model)] == expected
    linear = [module for module in modules(model) if isinstance(module, nn.Linear)]
    widths = [5] + [7] * (layers - 1) + [4]
    assert [(module.in_features, module.out_features) for module in linear] == list(itertools.pairwise(widths))
    assert model(torch.randn(6, 5), keys(6)).shape == (6, 4)


def test_a_bias_stands_only_where_no_batch_norm_would_undo_it() -> None:
    assert all(module.bias is None for module in modules(head(3, batch_norm=True)) if isinstance(module, nn.Linear))
    assert all(module.bias is not None for module in modules(head(3, False)) if isinstance(module, nn.Linear))


def test_only_the_last_batch_norm_has_no_trainable_shift() -> None:
    norms = [module for module in modules(head(3)) if isinstance(module, nn.BatchNorm1d)]
    assert [norm.bias.requires_grad for norm in norms] == [True, True, False]
    assert all(norm.weight.requires_grad for norm in norms)
    assert not norms[-1].bias.any()


def normalised(rows: Tensor) -> Tensor:
    return (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + 1e-5).sqrt()


def kept(count: int, dropout: float, epoch: int = 1) -> Tensor:
    """The reference: which of 7 units of each row stay, by the draws of the host."""
    draws = uniform(3, epoch, np.arange(count)[:, None], 1, 9, np.arange(7))
    return torch.from_numpy(draws >= dropout)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_two_layers_by_hand(dropout: float) -> None:
    model, h = head(dropout=dropout), torch.randn(6, 5)
    hidden = F.relu(normalised(h @ model.hidden[0].weight.T)) * kept(6, dropout) / (1 - dropout)
    torch.testing.assert_close(model(h, keys(6)), normalised(hidden @ model.output[0].weight.T))


def test_three_layers_by_hand() -> None:
    model, h = head(3, batch_norm=False, dropout=0.5), torch.randn(6, 5)
    first, second, last = (module for module in modules(model) if isinstance(module, nn.Linear))
    hidden = F.relu(second(F.relu(first(h)))) * kept(6, 0.5) * 2
    torch.testing.assert_close(model(h, keys(6)), last(hidden))


@pytest.mark.parametrize("dropout", [0.01, 0.3, 0.5, 0.99])
def test_the_mask_is_that_of_the_draws_on_the_host(dropout: float) -> None:
    module = projection_head.HashedDropout(dropout)
    rows = torch.ones(2000, 7, requires_grad=True)
    for epoch in (1, 2):
        found = module(rows, keys(2000, epoch))
        assert torch.equal(found, kept(2000, dropout, epoch) / (1 - dropout))
        (gradient,) = torch.autograd.grad(found.sum(), rows)
        assert torch.equal(gradient, found)
    assert not torch.equal(kept(2000, dropout, 1), kept(2000, dropout, 2))
    assert found.ne(0).float().mean() == pytest.approx(1 - dropout, abs=0.02)  # 14,000 draws: 4 standard deviations


def test_a_row_keeps_its_mask_among_others() -> None:
    module, rows = projection_head.HashedDropout(0.5), torch.ones(50, 7)
    together = module(rows, keys(50))
    order = torch.tensor([7, 7, 49, 0])
    assert torch.equal(module(rows[order], keys(50)[order]), together[order])
    assert torch.equal(module(rows[:1], keys(1)), together[:1])


def test_dropout_takes_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    head(dropout=0.5).dropout(torch.ones(6, 7), keys(6))
    torch.set_rng_state(before)
    first = head(dropout=0.5).state_dict()
    torch.set_rng_state(before)
    assert all(torch.equal(value, first[name]) for name, value in head(dropout=0.0).state_dict().items())


def test_evaluation_drops_nothing() -> None:
    model = head(dropout=0.5).eval()
    plain = head(dropout=0.0).eval()
    plain.load_state_dict(model.state_dict())
    h = torch.randn(6, 5)
    assert torch.equal(model(h, keys(6)), plain(h, keys(6)))


def test_an_infinite_unit_that_is_dropped_is_zero() -> None:
    rows = torch.full((4, 7), torch.inf)
    found = projection_head.HashedDropout(0.5)(rows, keys(4))
    assert torch.equal(found == 0, ~kept(4, 0.5))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_to_one_graph(backend: str, dropout: float, training: bool) -> None:
    model = head(3, dropout=dropout).train(training)
    h = torch.randn(6, 5)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend=backend)
    assert torch.equal(compiled(h, keys(6)), model(h, keys(6)))
