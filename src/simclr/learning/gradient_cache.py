"""The gradient of a batch that is computed in pieces, for batches whose activations do not fit into memory.

A contrastive loss needs the outputs for the whole batch, but its gradient with respect to the network reaches each
piece through the piece's outputs alone (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory
limited setup", section 3). So all pieces pass forward twice: once for the outputs, whose gradient the loss gives, and
once more, each followed by its backward pass from that gradient.

BatchNorm normalises each piece by its own statistics, those of its samples on all ranks. Its running statistics move in
the second pass alone. Without BatchNorm the gradient is that of the whole batch, up to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from simclr.core.errors import Stopped
from simclr.data.batch import Batch, Images, join_samples, samples_part
from simclr.learning.buffers import snapshot

Forward = Callable[[Images, Tensor], tuple[Tensor, ...]]


def backward(
    model: nn.Module,
    forward: Forward,
    batch: Batch,
    count: int,
    loss: Callable[[tuple[Tensor, ...]], tuple[Tensor, Tensor]],
    between: Callable[[], None],
    inputs: Images | None = None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Add the gradient of `loss` to that of the weights, by `count` pieces of `batch`.

    Args:
        model: placed on its device: see `placement`.
        forward: the outputs of `model` for images and keys.
        loss: from the outputs for the whole batch to the value to return and the one to differentiate.
        between: called between two pieces.
        inputs: what gets the gradient instead of the weights, such as the images of `batch`.

    Returns:
        The outputs for the whole batch, and the loss.

    Raises:
        Stopped: as `between`; buffers of `model` are then as before.
    """
    with _buffers_kept(model) as restore:
        parts = []
        with _unsynchronised(model):
            for images, keys in batch.pieces(count):
                # with a graph, so that both passes run the same kernels; it is freed with the outputs
                outputs = forward(images, keys)
                learns = [output.requires_grad for output in outputs]
                parts.append([output.detach() for output in outputs])
                del outputs
                restore()
                between()
        whole = tuple(join_samples(part, batch.views) for part in zip(*parts, strict=True))
        for output, learnt in zip(whole, learns, strict=True):
            output.requires_grad_(learnt)
        value, total = loss(whole)
        total.backward()
        gradients = [output.grad for output in whole]
        for number, (images, keys) in enumerate(batch.pieces(count)):
            last = number == count - 1
            with nullcontext() if last else _unsynchronised(model):
                outputs = forward(images, keys)
                torch.autograd.backward(*_with_gradients(outputs, gradients, batch.views, number, count), inputs=inputs)
            if not last:
                between()
    return tuple(output.detach() for output in whole), value


def _with_gradients(
    outputs: tuple[Tensor, ...], gradients: list[Tensor | None], views: int, number: int, count: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of a piece that the loss depends on, and their gradients."""
    pairs = [
        (output, samples_part(gradient, views, number, count))
        for output, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None
    ]
    return [output for output, _ in pairs], [gradient for _, gradient in pairs]


def _unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay those of this rank."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Give a `snapshot` of the buffers of `model`; restore them too if the block is stopped."""
    restore = snapshot(model)
    try:
        yield restore
    except Stopped:
        restore()
        raise
