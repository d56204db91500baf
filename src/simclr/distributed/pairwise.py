"""Losses over the similarities of all rows of the global batch, in memory linear in the batch.

Each of W ranks holds V views of n samples, so M = V n rows of z: first views, then second ones, and so on. Its anchors
are its own rows, its keys the K = W M rows of all ranks; the positives of an anchor are the other views of its sample,
its negatives all rows of other samples. For two views:

                 keys: rank 0          rank 1   ...
               first  second       first  second
    anchor i  [ s s s | s + s |     s s s | s s s | ... ]     s_ij, + the positive, s_ii left out

A loss is a `Rule`. The forward pass reduces the similarities of each anchor to a few statistics, block by block of
anchors; gathers the statistics and the similarities of positives of all rows, once; and maps them to the loss L_i of
each row. The backward pass computes the blocks again, so that memory grows with the block instead of the square of the
batch. Since anchors are keys too, s_ij enters L_i and L_j, and the gradient of the global mean with respect to a local
row needs no more communication:

    dz_i = sum over j of (dL_i/ds_ij + dL_j/ds_ij) ds_ij/dz_i / M

DDP averages over ranks, which turns 1 / M into 1 / (W M): exactly the gradient of the global mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from simclr.device import precision
from simclr.distributed.session import Session
from simclr.distributed.similarity import Similarity

_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Similarities in a block at most: 4 MiB of float32 on a CPU, which fit into its cache; 64 MiB on a GPU, enough to keep
it busy."""


@dataclass(frozen=True)
class Block:
    """Some anchors and their similarities to all keys."""

    similarity: Tensor
    """(h, K) s; -inf for an anchor and itself, and for its positives. A rule may overwrite it."""
    anchors: slice
    """The positions of the anchors among the keys."""


@dataclass(frozen=True)
class RowLosses:
    """The losses of all K rows, and their derivatives."""

    loss: Tensor
    """(K,) L."""
    attraction: Tensor
    """(K, V - 1) -dL_i/dp_ik: p_ik is the similarity to the view k places after that of row i, cyclically."""
    terms: Tensor
    """(K, Q) that `Rule.slope` needs of a row."""


class Rule(Protocol):
    """A loss of a row as a function of its similarities. The statistics of a row depend on its negatives alone."""

    def statistics(self, block: Block) -> Tensor:
        """The R statistics (h, R) of the anchors of `block`."""
        ...

    def losses(self, positive: Tensor, statistics: Tensor) -> RowLosses:
        """From the similarities of positives p (K, V - 1) and the statistics (K, R) of all rows."""
        ...

    def slope(self, block: Block, anchors: Tensor, keys: Tensor) -> Tensor:
        """dL_i/ds_ij + dL_j/ds_ij (h, K) for each pair of an anchor i and a key j; 0 where s_ij is -inf.

        `anchors` (h, Q) and `keys` (K, Q) are their `RowLosses.terms`.
        """
        ...


def mean_over_rows(z: Tensor, views: int, similarity: Similarity, rule: Rule, session: Session) -> Tensor:
    """The mean loss of this rank's rows, a scalar.

    Args:
        z: (V n, d) float32 or float64 rows that `similarity` compares, the second views after the first, in the same
            order; n is the same on every rank.
        views: V.
        session: the ranks that share the global batch; the backward pass needs no communication.
    """
    loss: Tensor = _MeanOverRows.apply(z, views, similarity, rule, session)
    return loss


def other_views(z: Tensor, views: int) -> list[Tensor]:
    """V - 1 tensors like `z` (V n, ...): row i of the k-th is the view k places after that of row i, cyclically, of the
    same sample."""
    return [z.roll(-k * (len(z) // views), dims=0) for k in range(1, views)]


@dataclass(frozen=True)
class KeyOrder:
    """The order of the keys: by rank, then by view, then by sample. A sample's place is that in the gathered `share`s.

    Args:
        views: V.
        share: samples of a rank.
    """

    views: int
    share: int

    def place(self, key: Tensor) -> Tensor:
        return key // (self.views * self.share) * self.share + key % self.share

    def key(self, place: Tensor, view: Tensor) -> Tensor:
        return place // self.share * (self.views * self.share) + view * self.share + place % self.share


def _blocks(z: Tensor, keys: Tensor, views: int, similarity: Similarity, offset: int) -> Iterator[Block]:
    """Blocks of the anchors `z`, which are the keys from `offset` on; the next block overwrites the last."""
    rows = torch.arange(len(z), device=z.device)
    left_out = offset + torch.stack([rows, *other_views(rows, views)], dim=1)
    height = min(len(z), max(1, _BLOCK_ELEMENTS[z.device.type] // len(keys)))
    memory = z.new_empty(
        (height, len(keys))
    )  # allocated once, because blocks of their own may fragment the allocator's memory
    for start in range(0, len(z), height):
        stop = min(start + height, len(z))
        block = similarity.of_all(z[start:stop], keys, out=memory[: stop - start])
        block.scatter_(1, left_out[start:stop], -torch.inf)
        yield Block(block, slice(offset + start, offset + stop))


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, views: int, similarity: Similarity, rule: Rule, session: Session) -> Tensor:
        with precision.full(z.device):
            keys = session.gather_rows(z)
            offset = session.rank * len(z)
            positive = torch.stack([similarity.of_rows(z, other) for other in other_views(z, views)], dim=1)
            statistics = torch.cat([rule.statistics(block) for block in _blocks(z, keys, views, similarity, offset)])
            gathered = session.gather_rows(torch.cat([positive, statistics], dim=1)).tensor_split([views - 1], dim=1)
            rows = rule.losses(*(columns.contiguous() for columns in gathered))
            own = slice(offset, offset + len(z))
            ctx.save_for_backward(z, keys, rows.attraction[own], rows.terms)
            ctx.views, ctx.similarity, ctx.rule, ctx.offset = views, similarity, rule, offset
            return rows.loss[own].mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        z, keys, attraction, terms = ctx.saved_tensors
        similarity: Similarity = ctx.similarity
        with precision.full(z.device):
            dz = _attracted(z, attraction, ctx.views, similarity)
            for block in _blocks(z, keys, ctx.views, similarity, ctx.offset):
                start, stop = block.anchors.start - ctx.offset, block.anchors.stop - ctx.offset
                similarity.add_gradient(
                    dz[start:stop],
                    ctx.rule.slope(block, terms[block.anchors], terms),  # not kept beside those of the next block
                    z[start:stop],
                    keys,
                )
            return dz.mul_(gradients[0] / (similarity.temperature * len(z))), None, None, None, None


def _attracted(z: Tensor, attraction: Tensor, views: int, similarity: Similarity) -> Tensor:
    """The gradient (V n, d) of the sum of all losses with respect to z, times tau, by positives alone.

    A positive pair (i, j) enters the loss twice, with i and with j as the anchor: dz_i has the attraction a_ij of its
    own row, and a_ji of row j. If j is k views after i, then i is V - k views after j: a_ji is in column V - k of
    `attraction`, and the roll brings row j to row i.
    """
    back = attraction.flip(1).unbind(1)
    moved = [slopes.roll(-k * (len(z) // views), dims=0) for k, slopes in enumerate(back, 1)]
    dz = torch.zeros_like(z)
    for own, other, positive in zip(attraction.unbind(1), moved, other_views(z, views), strict=True):
        dz -= (own + other)[:, None] * similarity.derivative(z, positive)
    return dz
