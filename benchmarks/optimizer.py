"""One step of LARS on the parameters of an encoder.

python -m benchmarks --only optimizer
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from benchmarks.contest import Row, Run, compare, milliseconds, peer, recipe
from simclr.learning import optimizer
from simclr.models import resnet

NOTES = """\
- Decay and adaptation on parameters with more than one dimension only, for both."""


def rows(device: torch.device, *, depth: int, width: float, least: float, repeats: int) -> Iterator[Row]:
    """The row of the table, for a ResNet of `depth` layers."""
    chosen = recipe("imagenet").parameters.optimizer

    def weights() -> list[dict[str, Any]]:
        network = resnet.Params(depth=depth, width=width, stem="imagenet", norm="batch", zero_init_residual=True)
        built = resnet.build(network, resolution=224).to(device)
        for weight in built.parameters():
            weight.grad = torch.randn_like(weight)
        return optimizer.by_decay(built)

    def timed(built: Optimizer) -> Run:
        return milliseconds(built.step, device, least)

    def lightly() -> Run:
        groups = [
            {"params": group["params"], "weight_decay": chosen.weight_decay if group["decay"] else 0.0}
            for group in weights()
        ]
        return timed(peer("lightly.utils.lars").LARS(groups, lr=1e-6, momentum=chosen.momentum))

    ours = timed(optimizer.build(chosen, weights(), lr=1e-6))
    yield from compare(f"a step of LARS, resnet{depth}", "ms", ours, {"lightly": lightly}, repeats)
