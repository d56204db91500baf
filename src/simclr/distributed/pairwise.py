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

Anchors may be compared with `Keys` instead. Then s_ij enters L_i alone, so that the gradient of an anchor has the first
of the two terms, and that of a key, if it has one, the second.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from simclr.device import precision
from simclr.distributed.session import Session
from simclr.distributed.similarity import Compared, Similarity

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
    """All T terms of a key that is no anchor, so that it has no loss."""


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
    keys, queue = (None, None) if rows.keys is None else (rows.keys.views, rows.keys.queue)
    loss: Tensor = _MeanOverRows.apply(rows.z, keys, queue, views, rows.similarity, rule, session)
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
        ctx: Any,
        z: Tensor,
        keys: Tensor | None,
        queue: Tensor | None,
        views: int,
        similarity: Similarity,
        rule: Rule,
        session: Session,
    ) -> Tensor:
        with precision.full(z.device):
            offset = session.rank * len(z)
            partners = z if keys is None else keys
            left_out = _own_views(z, views, offset) if queue is None else None
            compared = session.gather_rows(partners) if queue is None else queue
            positive = torch.stack([similarity.of_rows(z, other) for other in other_views(partners, views)], dim=1)
            blocks = _blocks(z, compared, left_out, similarity, offset)
            statistics = torch.cat([rule.statistics(block) for block in blocks])
            gathered = session.gather_rows(torch.cat([positive, statistics], dim=1)).tensor_split([views - 1], dim=1)
            rows = rule.losses(*(columns.contiguous() for columns in gathered))
            own = slice(offset, offset + len(z))
            anchors = session.gather_rows(z) if ctx.needs_input_grad[1] and queue is None else None
            ctx.save_for_backward(z, keys, compared, left_out, rows.attraction[own], rows.terms, anchors)
            ctx.similarity, ctx.rule, ctx.offset, ctx.neutral = similarity, rule, offset, rows.neutral
            return rows.loss[own].mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, keys, compared, left_out, attraction, terms, anchors = ctx.saved_tensors
        count, (_, width) = len(z), terms.shape
        own_terms = terms[ctx.offset : ctx.offset + count]
        dkeys = None
        with precision.full(z.device):
            if keys is None:
                dz = _attracted(z, z, attraction + _of_others(attraction), ctx.similarity)
                _add_negatives(ctx, dz, z, compared, left_out, own_terms, terms)
            else:
                dz = _attracted(z, keys, attraction, ctx.similarity)
                neutral = terms.new_full((len(compared), width), ctx.neutral)
                _add_negatives(ctx, dz, z, compared, left_out, own_terms, neutral)
                if ctx.needs_input_grad[1]:
                    dkeys = _attracted(keys, z, _of_others(attraction), ctx.similarity)
                    if anchors is not None:  # else those of the queue, which have no gradient
                        _add_negatives(ctx, dkeys, keys, anchors, left_out, neutral[:count], terms)
            for gradient in (dz, dkeys):
                if gradient is not None:
                    gradient.mul_(gradients[0] / (ctx.similarity.temperature * count))
        return dz, dkeys, None, None, None, None, None


def _add_negatives(
    ctx: Any, gradient: Tensor, rows: Tensor, others: Tensor, left_out: Tensor | None, terms: Tensor, of_others: Tensor
) -> None:
    """Add to the `gradient` (V n, d) of `rows`, times tau, what their negatives among the `others` (K, d) give; with
    the terms of both, (V n, T) and (K, T)."""
    for block in _blocks(rows, others, left_out, ctx.similarity, ctx.offset):
        part = slice(block.anchors.start - ctx.offset, block.anchors.stop - ctx.offset)
        ctx.similarity.add_gradient(
            gradient[part],
            ctx.rule.slope(block, terms[part], of_others),  # not kept beside those of the next block
            rows[part],
            others,
        )


def _of_others(attraction: Tensor) -> Tensor:
    """Of each row i the attraction (V n, V - 1) of the other views of its sample to it: of the view j that is k places
    after i. From there i is V - k places on, so it is in column V - k of row j.
    """
    samples = len(attraction) // (attraction.shape[1] + 1)
    columns = enumerate(attraction.flip(1).unbind(1), 1)
    return torch.stack([slopes.roll(-k * samples, dims=0) for k, slopes in columns], dim=1)


def _attracted(z: Tensor, partners: Tensor, attraction: Tensor, similarity: Similarity) -> Tensor:
    """The gradient (V n, d) of the sum of all losses with respect to z, times tau, by positives alone: the other views
    in `partners` (V n, d), with the `attraction` (V n, V - 1) between them."""
    dz = torch.zeros_like(z)
    positives = other_views(partners, attraction.shape[1] + 1)
    for slopes, positive in zip(attraction.unbind(1), positives, strict=True):
        dz -= slopes[:, None] * similarity.derivative(z, positive)
    return dz
