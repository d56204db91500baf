"""A batch in pieces, against the whole batch and against BatchNorm piece by piece, in float64."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from simclr.core.errors import Stopped
from simclr.data.batch import Batch, Images, join_samples, samples_part
from simclr.distributed.batch_norm import convert_sync_batchnorm
from simclr.distributed.session import Session
from simclr.learning import gradient_cache
from tests.contracts.test_losses import option
from tests.helpers.ranks import ALONE, on_ranks

SAMPLES, SIZES, VIEWS = 12, (2, 1), 3  # views of each size


class Network(nn.Module):
    """Images of any size to h and z, with dropout by key."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 7), nn.Linear(7, 5)
        self.norm = nn.BatchNorm1d(7) if norm else nn.Identity()
        self.passes: list[tuple[bool, Tensor]] = []
        """Whether each call made a graph, and its projections."""

    def forward(self, images: Images, keys: Tensor) -> tuple[Tensor, Tensor]:
        h = self.norm(self.first(torch.cat([views.mean(dim=(2, 3)) for views in images])).tanh())
        z = self.second(h * (keys % 3 > 0)[:, None])
        self.passes.append((torch.is_grad_enabled(), z.detach()))
        return h, z


def whole_batch(session: Session = ALONE, pieces: int = 1) -> Batch:
    """This rank's share of a batch: its part of each piece."""
    generator = torch.Generator().manual_seed(0)
    images = tuple(
        torch.randn(views * SAMPLES, 3, side, side, generator=generator, dtype=torch.float64)
        for views, side in zip(SIZES, (4, 2), strict=True)
    )
    keys = torch.randint(1 << 40, (VIEWS * SAMPLES,), generator=generator)

    def own(rows: Tensor, views: int) -> Tensor:
        parts = [samples_part(rows, views, number, pieces) for number in range(pieces)]
        return join_samples([samples_part(part, views, session.rank, session.world_size) for part in parts], views)

    labels, samples = torch.zeros(SAMPLES, dtype=torch.int64), torch.arange(SAMPLES)
    return Batch(
        tuple(own(item, views) for item, views in zip(images, SIZES, strict=True)), own(keys, VIEWS),
        own(labels, 1), own(samples, 1), VIEWS, SAMPLES,
    )  # fmt: skip


def network(norm: bool) -> Network:
    torch.manual_seed(1)
    return Network(norm).double()


def loss_of(batch: Batch, session: Session, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    loss = option("nt_xent", temperature=0.5)
    value = loss.module.loss(outputs[1], batch, loss.parameters, session)
    return value, value + outputs[0].square().mean()


def in_pieces(session: Session, count: int, norm: bool) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and buffers of one step on this rank."""
    model: nn.Module = convert_sync_batchnorm(network(norm), session)
    named = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    if session.world_size > 1:
        model = DistributedDataParallel(model, broadcast_buffers=False)
    batch = whole_batch(session, count)
    _, loss = gradient_cache.backward(
        model, model, batch, count, partial(loss_of, batch, session), between=lambda: None
    )
    gradients = {name: weight.grad for name, weight in named.items() if weight.grad is not None}
    return session.mean(loss), gradients, {name: buffer.clone() for name, buffer in buffers.items()}


def at_once() -> tuple[Tensor, dict[str, Tensor]]:
    model, batch = network(norm=False), whole_batch()
    value, total = loss_of(batch, ALONE, model(batch.images, batch.keys))
    total.backward()
    return value.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("count", [2, 3, 12])
def test_without_batch_norm_the_gradient_is_that_of_the_whole_batch(count: int) -> None:
    loss, gradients, _ = in_pieces(ALONE, count, norm=False)
    torch.testing.assert_close((loss.detach(), gradients), at_once())


def test_both_passes_run_the_same_graph() -> None:
    """An operation may give other bytes where no graph is made."""
    model, batch = network(norm=True), whole_batch()
    gradient_cache.backward(model, model, batch, 3, partial(loss_of, batch, ALONE), between=lambda: None)
    first, second = model.passes[:3], model.passes[3:]
    assert [made for made, _ in model.passes] == [True] * 6
    for (_, before), (_, after) in zip(first, second, strict=True):
        assert torch.equal(before, after)


def test_with_batch_norm_it_is_that_of_one_graph_over_all_pieces() -> None:
    """And running statistics move once for each piece."""
    model, batch = network(norm=True), whole_batch()
    outputs = [model(images, keys) for images, keys in batch.pieces(3)]
    whole = tuple(join_samples(parts, VIEWS) for parts in zip(*outputs, strict=True))
    value, total = loss_of(batch, ALONE, whole)
    total.backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    loss, gradients, buffers = in_pieces(ALONE, 3, norm=True)
    torch.testing.assert_close((loss.detach(), gradients), (value.detach(), expected))
    torch.testing.assert_close(buffers, dict(model.named_buffers()))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("world", "count"), [(2, 2), (2, 3), (4, 3)])
def test_ranks_have_the_gradient_and_the_buffers_of_one_process(world: int, count: int, norm: bool) -> None:
    expected = in_pieces(ALONE, count, norm)
    for result in on_ranks(world, in_pieces, count, norm):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_stopped_between_two_pieces_the_buffers_are_as_before(calls: int) -> None:
    """Of three pieces: after the first, second and third of the first pass, and after the first of the second."""
    model, batch = network(norm=True), whole_batch()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    stop = iter([*[False] * (calls - 1), True])

    def between() -> None:
        if next(stop):
            raise Stopped(15, "")

    with pytest.raises(Stopped):
        gradient_cache.backward(model, model, batch, 3, partial(loss_of, batch, ALONE), between)
    torch.testing.assert_close(dict(model.named_buffers()), before, rtol=0, atol=0)


def test_parts_of_samples_keep_the_order_of_views() -> None:
    rows = torch.arange(12)  # three views of four samples
    parts = [samples_part(rows, 3, number, 2) for number in range(2)]
    assert [part.tolist() for part in parts] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
    assert join_samples(parts, 3).tolist() == rows.tolist()


class Saved:
    """A tensor that a graph keeps for the backward pass; its bytes are counted while it lives."""

    now = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # with its graph, which holds this, it would live forever
        Saved.now += tensor.nbytes
        Saved.most = max(Saved.most, Saved.now)

    def __del__(self) -> None:
        Saved.now -= self.tensor.nbytes


def most_saved(batch: Batch, count: int) -> int:
    Saved.now = Saved.most = 0
    model = network(norm=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor)
    with hooks:
        gradient_cache.backward(
            model, model, batch, count, lambda outputs: (outputs[1].sum(), outputs[1].sum()), lambda: None
        )
    return Saved.most


def test_only_one_piece_at_a_time_keeps_its_activations() -> None:
    batch = whole_batch()
    images, keys = next(batch.pieces(6))
    piece = Batch(images, keys, batch.labels[:2], batch.samples[:2], VIEWS, 2)
    assert most_saved(batch, 1) > 4 * most_saved(piece, 1)
    assert most_saved(batch, 6) < 1.1 * most_saved(piece, 1)
