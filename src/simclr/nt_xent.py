"""NT-Xent, the normalised temperature-scaled cross entropy (Chen et al. 2020, equation 1), over the global batch.

Each of W ranks holds n samples, so M = 2n rows of z: first views, then second ones. Its anchors are its own rows;
the negatives of each are all rows of all ranks but itself and its positive:

                 keys: rank 0          rank 1   ...
               first  second       first  second
    anchor i  [ s s s | s + s |     s s s | s s s | ... ]     s = z_i . z_j / tau,  + the positive,
                                                              s_ii left out

The loss of row i is lse_i - s_i,pos(i), with lse_i the log-sum-exp of row i. Similarities are never kept: both
passes make them anew, block of anchors by block, in float32, so that memory grows with the block and not with the
square of the batch. Since anchors are keys too, the gradient of the global mean with respect to a local row needs
only the other ranks' z and lse, both gathered in the forward pass:

    dz_i = (sum over j != i of (exp(s_ij - lse_i) + exp(s_ij - lse_j)) z_j  -  2 z_pos(i)) / (tau M)

DDP averages over ranks, which turns 1 / M into 1 / (W M): exactly the gradient of the global mean.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.distributed import Session

_BLOCK_ELEMENTS = 1 << 22
"""Similarities held at once: 16 MiB of float32."""


def nt_xent(z: Tensor, temperature: float, session: Session) -> Tensor:
    """The mean loss of this rank's rows, a float32 scalar.

    Args:
        z: (2n, d) projections of any floating-point type, the second views after the first, in the same order; n is
            the same on every rank. They are normalised here.
        temperature: tau > 0.
        session: whose ranks make up the global batch; its backward pass communicates nothing.
    """
    z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
    loss: Tensor = _NTXent.apply(z, temperature, session)
    return loss


def positives(z: Tensor) -> Tensor:
    """Row i of the result is the other view of row i's sample: the halves of (2n, d) swapped."""
    return z.roll(len(z) // 2, dims=0)


def _blocks(rows: int, keys: int) -> list[slice]:
    height = max(1, _BLOCK_ELEMENTS // keys)
    return [slice(start, min(start + height, rows)) for start in range(0, rows, height)]


def _similarities(z: Tensor, block: slice, keys: Tensor, offset: int, temperature: float) -> Tensor:
    """(block, keys) of s; -inf where a row meets itself, row `offset + i` of the keys."""
    similarity = (z[block] / temperature) @ keys.T
    similarity.diagonal(offset + block.start).fill_(-torch.inf)
    return similarity


def _logsumexp_(rows: Tensor) -> Tensor:
    """Of each of the `rows`, which it overwrites; torch's own makes several copies of them."""
    largest = rows.amax(dim=1)
    return rows.sub_(largest[:, None]).exp_().sum(dim=1).log_().add_(largest)


class _NTXent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, session: Session) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            keys = session.gather_rows(z)
            offset = session.rank * len(z)
            lse = torch.cat(
                [
                    _logsumexp_(_similarities(z, block, keys, offset, temperature))
                    for block in _blocks(len(z), len(keys))
                ]
            )
            ctx.save_for_backward(z, keys, lse, session.gather_rows(lse))
            ctx.temperature, ctx.offset = temperature, offset
            return (lse - (z * positives(z)).sum(dim=1) / temperature).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        z, keys, lse, all_lse = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            dz = -2 * positives(z)
            for block in _blocks(len(z), len(keys)):
                similarity = _similarities(z, block, keys, ctx.offset, ctx.temperature)
                weights = (similarity - lse[block, None]).exp_()
                weights += similarity.sub_(all_lse).exp_()
                dz[block] += weights @ keys
            return dz * (gradients[0] / (ctx.temperature * len(z))), None, None
