"""Softmax losses over the similarities of all rows of the global batch, in memory linear in the batch.

Each of W ranks holds V views of n samples, so M = V n rows of z: first views, then second ones, and so on. Its anchors
are its own rows; the positives of each are the other views of its sample, its negatives all rows of other samples on
all ranks. For two views:

                 keys: rank 0          rank 1   ...
               first  second       first  second
    anchor i  [ s s s | s + s |     s s s | s s s | ... ]     s = z_i . z_j / tau,  + the positive,
                                                              s_ii left out

The statistics of anchor i are p_ik, the similarities of its V - 1 positives, and n_i, the log-sum-exp of its negatives.
A loss is a rule (see `Rule`) that maps them to the loss of the row; d_i, the logarithm of its denominator, which makes
exp(s_ij - d_i) the slope of a negative; and a_ik, which makes -a_ik the slope of a positive.
Both passes compute the similarities block by block of anchors, in float32, and discard them, so that memory grows
with the block instead of the square of the batch. Since anchors are keys too, the gradient of the global mean with
respect to a local row needs only the other ranks' z and d, both gathered in the forward pass:

    dz_i = (sum over negatives j of (exp(s_ij - d_i) + exp(s_ij - d_j)) z_j
            - sum over positives j of (a_ij + a_ji) z_j) / (tau M)

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
"""Similarities in a block at most: 4 MiB of float32 on a CPU, which fit into its cache; 64 MiB on a GPU, enough to keep
it busy."""
_MAX_LOGIT = 60.0
"""If |s| <= 1 / tau is at most this, exp(s) and its sums stay far below float32's maximum without a shift."""

Rule = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From p (M, V - 1) and n (M,) to the loss (M,), the logarithm of the denominator d (M,), and a (M, V - 1)."""


def mean_over_rows(z: Tensor, views: int, temperature: float, rule: Rule, session: Session) -> Tensor:
    """The mean loss of this rank's rows, a float32 scalar.

    Args:
        z: (V n, d) projections of any floating-point type, the second views after the first, in the same order; n is
            the same on every rank. They are normalised here.
        views: V.
        temperature: tau > 0.
        rule: the loss of a row and its slopes: see `Rule`.
        session: the ranks that share the global batch; the backward pass needs no communication.
    """
    z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
    loss: Tensor = _MeanOverRows.apply(z, views, temperature, rule, session)
    return loss


def other_views(z: Tensor, views: int) -> list[Tensor]:
    """V - 1 tensors like `z` (V n, ...): row i of the k-th is the view k places after that of row i, cyclically, of the
    same sample."""
    return [z.roll(-k * (len(z) // views), dims=0) for k in range(1, views)]


def _blocks(z: Tensor, keys: Tensor, views: int, temperature: float, offset: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the anchors `z`, each with its similarities s, which the next block overwrites.

    s is -inf for a row and itself, row `offset + i` of the keys, and for its positives.
    """
    rows = torch.arange(len(z), device=z.device)
    left_out = offset + torch.stack([rows, *other_views(rows, views)], dim=1)
    height = min(len(z), max(1, _BLOCK_ELEMENTS[z.device.type] // len(keys)))
    memory = z.new_empty(
        (height, len(keys))
    )  # allocated once, because blocks of their own may fragment the allocator's memory
    for start in range(0, len(z), height):
        block = slice(start, min(start + height, len(z)))
        similarity = torch.mm(z[block] / temperature, keys.T, out=memory[: block.stop - start])
        yield block, similarity.scatter_(1, left_out[block], -torch.inf)


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, views: int, temperature: float, rule: Rule, session: Session) -> Tensor:
        with precision.full(z.device):
            keys = session.gather_rows(z)
            offset = session.rank * len(z)
            positive = torch.stack([(z * other).sum(dim=1) for other in other_views(z, views)], dim=1) / temperature
            negative = z.new_empty(len(z))
            for block, similarity in _blocks(z, keys, views, temperature, offset):
                if temperature * _MAX_LOGIT >= 1:
                    negative[block] = similarity.exp_().sum(dim=1).log_()
                else:
                    negative[block] = similarity.logsumexp(dim=1)
            loss, denominator, attraction = rule(positive, negative)
            ctx.save_for_backward(z, keys, attraction, denominator, session.gather_rows(denominator))
            ctx.views, ctx.temperature, ctx.offset = views, temperature, offset
            return loss.mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        z, keys, attraction, denominator, all_denominators = ctx.saved_tensors
        blocks = (z, keys, ctx.views, ctx.temperature, ctx.offset)
        with precision.full(z.device):
            # A positive pair (i, j) enters the loss twice, with i and with j as the anchor: dz_i has a_ij from its own
            # row, and a_ji from row j. If j is k views after i, then i is V - k views after j: a_ji is in column
            # V - k of `attraction`, and the roll brings row j to row i.
            back = attraction.flip(1).unbind(1)
            moved = [slopes.roll(-k * (len(z) // ctx.views), dims=0) for k, slopes in enumerate(back, 1)]
            dz = torch.zeros_like(z)
            for own_slope, other_slope, other in zip(
                attraction.unbind(1), moved, other_views(z, ctx.views), strict=True
            ):
                dz -= (own_slope + other_slope)[:, None] * other
            # Negatives: exp(s - d_i) with i as the anchor, exp(s - d_j) with j as the anchor.
            if ctx.temperature * _MAX_LOGIT >= 1:
                # exp(s) cannot overflow, so one exponential serves both: exp(s) (exp(-d_i) + exp(-d_j))
                own, others = (-denominator).exp(), (-all_denominators).exp()
                for block, similarity in _blocks(*blocks):
                    dz[block].addmm_(similarity.exp_().mul_(own[block, None] + others), keys)
            else:  # two passes, each shifted before its exponential
                for shift in (denominator[:, None], all_denominators.expand(len(z), -1)):
                    for block, similarity in _blocks(*blocks):
                        dz[block].addmm_(similarity.sub_(shift[block]).exp_(), keys)
            return dz * (gradients[0] / (ctx.temperature * len(z))), None, None, None, None
