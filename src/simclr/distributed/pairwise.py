"""Losses of softmax form over the similarities of all rows of the global batch, in memory that grows with the batch.

Each of W ranks holds n samples, so M = 2n rows of z: first views, then second ones. Its anchors are its own rows;
the negatives of each are all rows of all ranks but itself and its positive:

                 keys: rank 0          rank 1   ...
               first  second       first  second
    anchor i  [ s s s | s + s |     s s s | s s s | ... ]     s = z_i . z_j / tau,  + the positive,
                                                              s_ii left out

Of every anchor i two statistics are taken: p_i, the similarity of its positive, and n_i, the log-sum-exp of its
negatives. A loss is a rule that makes three values of them (see `Rule`): the loss of the row; d_i, the logarithm of
its denominator, so that the slope of a negative is exp(s_ij - d_i); and a_i, so that the slope of the positive is -a_i.
Similarities are never kept: both passes make them anew, block of anchors by block, in float32, so that memory grows
with the block and not with the square of the batch. Since anchors are keys too, the gradient of the global mean with
respect to a local row needs only the other ranks' z and d, both gathered in the forward pass:

    dz_i = (sum over negatives j of (exp(s_ij - d_i) + exp(s_ij - d_j)) z_j - (a_i + a_pos(i)) z_pos(i)) / (tau M)

DDP averages over ranks, which turns 1 / M into 1 / (W M): exactly the gradient of the global mean.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.device import precision
from simclr.distributed.session import Session

_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Similarities in a block at most: 4 MiB of float32 on a CPU, which its cache holds; 64 MiB on a GPU, which a few rows
would not fill."""
_LARGEST = 60.0
"""Up to 1 / tau of this, exp(s) and sums of it are far inside of what float32 can hold, without a shift."""

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From p and n (M,) to the loss, the logarithm of the denominator d and the positive's slope a, each (M,)."""


def mean_over_rows(z: Tensor, temperature: float, rule: Rule, session: Session) -> Tensor:
    """The mean loss of this rank's rows, a float32 scalar.

    Args:
        z: (2n, d) projections of any floating-point type, the second views after the first, in the same order; n is
            the same on every rank. They are normalised here.
        temperature: tau > 0.
        rule: the loss.
        session: whose ranks make up the global batch; its backward pass communicates nothing.
    """
    z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
    loss: Tensor = _MeanOverRows.apply(z, temperature, rule, session)
    return loss


def positives(z: Tensor) -> Tensor:
    """Row i of the result is the other view of row i's sample: the halves of (2n, d) swapped."""
    return z.roll(len(z) // 2, dims=0)


def _blocks(z: Tensor, keys: Tensor, temperature: float, offset: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the anchors `z`, each with its s, which the next one overwrites.

    -inf stands where a row meets itself, row `offset + i` of the keys, or its positive.
    """
    rows = torch.arange(len(z), device=z.device)
    left_out = offset + torch.stack([rows, positives(rows)], dim=1)
    height = min(len(z), max(1, _BLOCK_ELEMENTS[z.device.type] // len(keys)))
    memory = z.new_empty((height, len(keys)))  # once, because an allocator may leave a gap behind each new one
    for start in range(0, len(z), height):
        block = slice(start, min(start + height, len(z)))
        similarity = torch.mm(z[block] / temperature, keys.T, out=memory[: block.stop - start])
        yield block, similarity.scatter_(1, left_out[block], -torch.inf)


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, rule: Rule, session: Session) -> Tensor:
        with precision.full(z.device):
            keys = session.gather_rows(z)
            offset = session.rank * len(z)
            positive = (z * positives(z)).sum(dim=1) / temperature
            negative = torch.empty_like(positive)
            for block, similarity in _blocks(z, keys, temperature, offset):
                if temperature * _LARGEST >= 1:
                    negative[block] = similarity.exp_().sum(dim=1).log_()
                else:
                    negative[block] = similarity.logsumexp(dim=1)
            loss, denominator, attraction = rule(positive, negative)
            ctx.save_for_backward(z, keys, attraction, denominator, session.gather_rows(denominator))
            ctx.temperature, ctx.offset = temperature, offset
            return loss.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        z, keys, attraction, denominator, all_denominators = ctx.saved_tensors
        blocks = (z, keys, ctx.temperature, ctx.offset)
        with precision.full(z.device):
            dz = (attraction + positives(attraction)).neg_()[:, None] * positives(z)
            if ctx.temperature * _LARGEST >= 1:
                own, others = (-denominator).exp(), (-all_denominators).exp()
                for block, similarity in _blocks(*blocks):  # exp(s - d_i) + exp(s - d_j), by one exponential
                    dz[block].addmm_(similarity.exp_().mul_(own[block, None] + others), keys)
            else:
                for shift in (denominator[:, None], all_denominators.expand(len(z), -1)):
                    for block, similarity in _blocks(*blocks):
                        dz[block].addmm_(similarity.sub_(shift[block]).exp_(), keys)
            return dz * (gradients[0] / (ctx.temperature * len(z))), None, None, None
