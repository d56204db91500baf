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

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.distributed import Session

_BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Similarities in a block at most: 16 MiB of float32 on a CPU; 256 MiB on a GPU, which a few rows would not fill."""


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


def _memory(z: Tensor, keys: Tensor) -> Tensor:
    """Room for a block of similarities; allocated once, because an allocator may leave a gap behind each new one."""
    height = min(len(z), max(1, _BLOCK_ELEMENTS[z.device.type] // len(keys)))
    return z.new_empty((height, len(keys)))


def _blocks(z: Tensor, keys: Tensor, temperature: float, offset: int, memory: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the anchors `z`, each with its s in `memory`; -inf where a row meets itself, row `offset + i` of the
    keys."""
    for start in range(0, len(z), len(memory)):
        block = slice(start, min(start + len(memory), len(z)))
        similarity = torch.mm(z[block] / temperature, keys.T, out=memory[: block.stop - start])
        similarity.diagonal(offset + start).fill_(-torch.inf)
        yield block, similarity


class _NTXent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float, session: Session) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            keys = session.gather_rows(z)
            offset = session.rank * len(z)
            lse = z.new_empty(len(z))
            for block, similarity in _blocks(z, keys, temperature, offset, _memory(z, keys)):
                largest = similarity.amax(dim=1)  # in place, where torch's logsumexp makes several copies
                lse[block] = similarity.sub_(largest[:, None]).exp_().sum(dim=1).log_().add_(largest)
            ctx.save_for_backward(z, keys, lse, session.gather_rows(lse))
            ctx.temperature, ctx.offset = temperature, offset
            return (lse - (z * positives(z)).sum(dim=1) / temperature).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        z, keys, lse, all_lse = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            dz = -2 * positives(z)
            memory, other = _memory(z, keys), _memory(z, keys)
            for block, similarity in _blocks(z, keys, ctx.temperature, ctx.offset, memory):
                weights = torch.sub(similarity, lse[block, None], out=other[: len(similarity)]).exp_()
                weights += similarity.sub_(all_lse).exp_()
                dz[block].addmm_(weights, keys)
            return dz * (gradients[0] / (ctx.temperature * len(z))), None, None
