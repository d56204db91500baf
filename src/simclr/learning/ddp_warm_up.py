"""A step of DDP that changes nothing, before the first real one.

DDP rebuilds its gradient buckets after its first step, and from three ranks on the place in a bucket decides in which
order a gradient is summed. With all real steps after the rebuild, a resumed run rounds as an undisturbed one.
"""

from collections.abc import Sequence

import torch

from simclr.learning.buffers import snapshot
from simclr.learning.learner import Learner


def run(learner: Learner, shapes: Sequence[tuple[int, int]]) -> None:
    """Pass black images forward and backward: N of S x S pixels for each (N, S) of `shapes`, those of a real step."""
    device = learner.session.device
    restore = snapshot(learner.method)
    images = tuple(
        torch.zeros(count, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        for count, size in shapes
    )
    keys = torch.zeros(sum(count for count, _ in shapes), dtype=torch.int64, device=device)
    outputs = learner.forward(images, keys)
    torch.stack([output.sum() for output in outputs]).sum().backward()
    restore()
    learner.optimizer.zero_grad()
