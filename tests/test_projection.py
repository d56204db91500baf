import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr import projection
from simclr.projection import HeadParams


def head(layers: int = 2, batch_norm: bool = True, dropout: float = 0.0) -> nn.Sequential:
    parameters = HeadParams(layers=layers, hidden=7, output=4, batch_norm=batch_norm, dropout=dropout)
    return projection.build(parameters, dimension=5)


def kinds(model: nn.Sequential) -> list[type[nn.Module]]:
    return [type(module) for module in model]


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
    assert kinds(model) == expected
    linear = [module for module in model if isinstance(module, nn.Linear)]
    widths = [5] + [7] * (layers - 1) + [4]
    assert [(module.in_features, module.out_features) for module in linear] == list(itertools.pairwise(widths))
    assert model(torch.randn(6, 5)).shape == (6, 4)


def test_a_bias_stands_only_where_no_batch_norm_would_undo_it() -> None:
    assert all(module.bias is None for module in head(3, batch_norm=True) if isinstance(module, nn.Linear))
    assert all(module.bias is not None for module in head(3, batch_norm=False) if isinstance(module, nn.Linear))


def test_only_the_last_batch_norm_has_no_trainable_shift() -> None:
    norms = [module for module in head(3) if isinstance(module, nn.BatchNorm1d)]
    assert [norm.bias.requires_grad for norm in norms] == [True, True, False]
    assert all(norm.weight.requires_grad for norm in norms)
    assert not norms[-1].bias.any()


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("layers", [2, 3])
def test_dropout_stands_before_the_last_layer_alone(layers: int, batch_norm: bool) -> None:
    model = head(layers, batch_norm, dropout=0.3)
    found = kinds(model)
    assert found.count(nn.Dropout) == 1
    position = found.index(nn.Dropout)
    assert model[position].p == 0.3
    assert found[:position] == (HIDDEN if batch_norm else PLAIN) * (layers - 1)
    assert found[position + 1 :] == ([nn.Linear, nn.BatchNorm1d] if batch_norm else [nn.Linear])


def normalised(rows: Tensor) -> Tensor:
    return (rows - rows.mean(dim=0)) / (rows.var(dim=0, correction=0) + 1e-5).sqrt()


def test_two_layers_by_hand() -> None:
    model, h = head(), torch.randn(6, 5)
    hidden = F.relu(normalised(h @ model[0].weight.T))
    torch.testing.assert_close(model(h), normalised(hidden @ model[3].weight.T))
