"""The buffers of a network, such as BatchNorm's running statistics, while it computes what should leave no trace."""

from collections.abc import Callable

from torch import nn


def snapshot(model: nn.Module) -> Callable[[], None]:
    """A function that sets the buffers of `model` to what they are now."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]

    def restore() -> None:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

    return restore
