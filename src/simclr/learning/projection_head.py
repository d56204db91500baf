"""The projection head g of SimCLR (Chen et al. 2020, section 4.2; three layers: SimCLRv2, section 3.1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simclr.core import params, randomness
from simclr.data.batch import Images
from simclr.features.encoder import Encoder, encode


@dataclass(kw_only=True)
class HeadParams:
    """The section `head` of a method in params.yaml."""

    layers: int = params.choice(2, 3)
    hidden: int = params.between(1, 65536)
    output: int = params.between(2, 65536)
    batch_norm: bool
    dropout: float = params.between(0, 0.99)


class HashedDropout(nn.Module):
    """Dropout with a mask that is a function of the row's key and the unit, independent of order, process and batch."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, rows: Tensor, keys: Tensor) -> Tensor:
        """Zero the values of `rows` (N, D) with a draw below p, and divide the others by 1 - p; `keys` (N,) as in
        `randomness.reaches`."""
        if not self.training or self.p == 0:
            return rows
        units = torch.arange(rows.shape[1], device=rows.device)
        return torch.where(randomness.reaches(self.p, keys[:, None], units), rows / (1 - self.p), 0)


class Head(nn.Module):
    """The layers before dropout, and those after it.

    Args:
        shape: what `build` made it by.
        dimension: that of the representations.
    """

    def __init__(self, shape: HeadParams, dimension: int, hidden: nn.Sequential, output: nn.Sequential) -> None:
        super().__init__()
        self.shape, self.dimension = shape, dimension
        self.hidden, self.dropout, self.output = hidden, HashedDropout(shape.dropout), output

    def forward(self, h: Tensor, keys: Tensor) -> Tensor:
        """h (N, dimension) to z (N, output); the `keys` (N,) of the views, on the same device, draw the dropout."""
        z: Tensor = self.output(self.dropout(self.hidden(h), keys))
        return z

    def first(self, count: int) -> nn.Sequential:
        """The first `count` of the layers before the last one, each with its BatchNorm and ReLU."""
        return self.hidden[: len(self.hidden) // (self.shape.layers - 1) * count]


def project(encoder: Encoder, head: nn.Module, images: Images, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Representations h (N, D) and projections z (N, d), float32 at least."""
    h = encode(encoder, images)
    with torch.autocast(h.device.type, enabled=False):  # the 8 bits of a bf16 z would be noise in the gradient
        return h, head(h.to(torch.promote_types(h.dtype, torch.float32)), keys)


def build(parameters: HeadParams, dimension: int) -> Head:
    """h (N, dimension) to z (N, output): linear layers with ReLU between them and, with `batch_norm`, a BatchNorm after
    every layer; the last BatchNorm has no shift, as in the authors' code. Dropout precedes the last layer.
    """
    hidden, inputs = nn.Sequential(), dimension
    for width in [parameters.hidden] * (parameters.layers - 1):
        hidden.append(nn.Linear(inputs, width, bias=not parameters.batch_norm))
        if parameters.batch_norm:
            hidden.append(nn.BatchNorm1d(width))
        hidden.append(nn.ReLU(inplace=True))
        inputs = width
    output = nn.Sequential(nn.Linear(inputs, parameters.output, bias=not parameters.batch_norm))
    if parameters.batch_norm:
        last = nn.BatchNorm1d(parameters.output)
        last.bias.requires_grad_(False)
        output.append(last)
    return Head(parameters, dimension, hidden, output)
