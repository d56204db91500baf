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

Anchors may have `Keys` of another network instead, whose positives are the other views of the anchor's sample and whose
queue are the negatives. These have no gradient, and dL_j/ds_ij is 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from simclr.device import precision
from simclr.distributed.session import Session
from simclr.distributed.similarity import Compared, Keys, Similarity

_BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Similarities in a block at most: 4 MiB of float32 on a CPU, which fit into its cache; 128 MiB on a GPU, enough to
keep it busy."""


@dataclass(frozen=True)
class Block:
    """Some anchors and their similarities to all keys."""

    similarity: Tensor
    """(h, K) s; -inf for an anchor and itself, and for its positives. A rule may overwrite it."""
    anchors: slice
    """The positions of the anchors among the rows of all ranks."""


@dataclass(frozen=True)
class RowLosses:
    """The losses of all K rows, and their derivatives."""

    loss: Tensor
    """(K,) L."""
    attraction: Tensor
    """(K, V - 1) -dL_i/dp_ik: p_ik is the similarity to the view k places after that of row i, cyclically."""
    terms: Tensor
    """(K, T) that `Rule.slope` needs of a row."""
    neutral: float = 0.0
    """All T terms of a key that has no loss of its own."""


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

        `anchors` (h, T) and `keys` (K, T) are their `RowLosses.terms`.
        """
        ...


def mean_over_rows(rows: Compared, views: int, rule: Rule, session: Session) -> Tensor:
    """The mean loss of this rank's anchors, a scalar.

    Args:
        rows: the anchors, second views after first ones, in the same order; n is the same on every rank.
        views: V.
        session: the ranks that share the global batch; the backward pass needs no communication.
    """
    loss: Tensor = _MeanOverRows.apply(rows.z, views, rows.similarity, rows.keys, rule, session)
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


def _own_views(z: Tensor, views: int, offset: int) -> Tensor:
    """(V n, V): of each of the anchors `z`, the rows from `offset` on of all ranks: itself and its positives."""
    rows = torch.arange(len(z), device=z.device)
    return offset + torch.stack([rows, *other_views(rows, views)], dim=1)


def _blocks(z: Tensor, keys: Tensor, left_out: Tensor | None, similarity: Similarity, offset: int) -> Iterator[Block]:
    """Blocks of the anchors `z`, the rows from `offset` on, without the keys `left_out` (V n, ...); the next block
    overwrites the last."""
    height = min(len(z), max(1, _BLOCK_ELEMENTS[z.device.type] // len(keys)))
    memory = z.new_empty(
        (height, len(keys))
    )  # allocated once, because blocks of their own may fragment the allocator's memory
    for start in range(0, len(z), height):
        stop = min(start + height, len(z))
        block = similarity.of_all(z[start:stop], keys, out=memory[: stop - start])
        if left_out is not None:
            block.scatter_(1, left_out[start:stop], -torch.inf)
        yield Block(block, slice(offset + start, offset + stop))


class _MeanOverRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, views: int, similarity: Similarity, keys: Keys | None, rule: Rule, session: Session
    ) -> Tensor:
        with precision.full(z.device):
            offset = session.rank * len(z)
            if keys is None:
                compared, left_out, partners = session.gather_rows(z), _own_views(z, views, offset), z
            else:
                compared, left_out, partners = keys.queue, None, keys.views
            positive = torch.stack([similarity.of_rows(z, other) for other in other_views(partners, views)], dim=1)
            blocks = _blocks(z, compared, left_out, similarity, offset)
            statistics = torch.cat([rule.statistics(block) for block in blocks])
            gathered = session.gather_rows(torch.cat([positive, statistics], dim=1)).tensor_split([views - 1], dim=1)
            rows = rule.losses(*(columns.contiguous() for columns in gathered))
            own = slice(offset, offset + len(z))
            ctx.save_for_backward(z, compared, left_out, rows.attraction[own], rows.terms)
            ctx.views, ctx.similarity, ctx.keys, ctx.rule, ctx.offset = views, similarity, keys, rule, offset
            ctx.neutral = rows.neutral
            return rows.loss[own].mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, compared, left_out, attraction, terms = ctx.saved_tensors
        similarity: Similarity = ctx.similarity
        with precision.full(z.device):
            if ctx.keys is None:
                dz = _attracted(z, z, _of_pairs(attraction, len(z) // ctx.views), similarity)
                key_terms = terms
            else:
                dz = _attracted(z, ctx.keys.views, attraction, similarity)
                key_terms = terms.new_full((len(compared), terms.shape[1]), ctx.neutral)
            for block in _blocks(z, compared, left_out, similarity, ctx.offset):
                start, stop = block.anchors.start - ctx.offset, block.anchors.stop - ctx.offset
                similarity.add_gradient(
                    dz[start:stop],
                    ctx.rule.slope(block, terms[block.anchors], key_terms),  # not kept beside those of the next block
                    z[start:stop],
                    compared,
                )
            return dz.mul_(gradients[0] / (similarity.temperature * len(z))), None, None, None, None, None


def _of_pairs(attraction: Tensor, samples: int) -> Tensor:
    """The attraction (V n, V - 1) of each positive pair (i, j), which enters the loss twice, with i and with j as the
    anchor: a_ij of row i and a_ji of row j. If j is k views after i, then i is V - k views after j: a_ji is in column
    V - k of `attraction`, and the roll brings row j to row i.
    """
    back = [slopes.roll(-k * samples, dims=0) for k, slopes in enumerate(attraction.flip(1).unbind(1), 1)]
    return attraction + torch.stack(back, dim=1)


def _attracted(z: Tensor, partners: Tensor, attraction: Tensor, similarity: Similarity) -> Tensor:
    """The gradient (V n, d) of the sum of all losses with respect to z, times tau, by positives alone: the other views
    in `partners` (V n, d), with their `attraction` (V n, V - 1)."""
    dz = torch.zeros_like(z)
    positives = other_views(partners, attraction.shape[1] + 1)
    for slopes, positive in zip(attraction.unbind(1), positives, strict=True):
        dz -= slopes[:, None] * similarity.derivative(z, positive)
    return dz
