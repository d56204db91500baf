"""The projection head g of SimCLR (Chen et al. 2020, section 4.2; three layers: SimCLRv2, section 3.1)."""

from dataclasses import dataclass

from torch import nn

from simclr import params


@dataclass(kw_only=True)
class HeadParams:
    """`pretrain.head` of params.yaml."""

    layers: int = params.choice(2, 3)
    hidden: int = params.at_least(1)
    output: int = params.at_least(2)
    batch_norm: bool
    dropout: float = params.between(0, 0.99)


def build(parameters: HeadParams, dimension: int) -> nn.Sequential:
    """h (N, dimension) to z (N, output): linear layers with ReLU between them, and after each, the last one too,
    BatchNorm if asked for; the last BatchNorm has no shift, as in the authors' code. Dropout precedes the last layer.
    """
    modules: list[nn.Module] = []
    for width in [parameters.hidden] * (parameters.layers - 1):
        modules.append(nn.Linear(dimension, width, bias=not parameters.batch_norm))
        if parameters.batch_norm:
            modules.append(nn.BatchNorm1d(width))
        modules.append(nn.ReLU(inplace=True))
        dimension = width
    if parameters.dropout > 0:
        modules.append(nn.Dropout(parameters.dropout))
    modules.append(nn.Linear(dimension, parameters.output, bias=not parameters.batch_norm))
    if parameters.batch_norm:
        last = nn.BatchNorm1d(parameters.output)
        last.bias.requires_grad_(False)
        modules.append(last)
    return nn.Sequential(*modules)
