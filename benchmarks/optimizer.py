"""One step of LARS on the parameters of an encoder.

python -m benchmarks --only optimizer
"""

from collections.abc import Iterator

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from benchmarks.contest import Row, Run, compare, milliseconds, peer
from simclr import presets
from simclr.core import params
from simclr.models import resnet
from simclr.models.resnet import EncoderParams
from simclr.learning import optimizer
from simclr.learning.optimizer import OptimizerParams

NOTES = """\
- Decay and adaptation on parameters with more than one dimension only, for both."""


def rows(device: torch.device, *, name: str, width: float, least: float, repeats: int) -> Iterator[Row]:
    """The row of the table, for the encoder `name`."""
    chosen = params.check(presets.compose("imagenet")["pretrain"]["optimizer"], OptimizerParams, "optimizer", "preset")

    def weights() -> list[Parameter]:
        network = EncoderParams(name=name, width=width, stem="imagenet", zero_init_residual=True)
        built = resnet.build(network, size=224).to(device)
        for weight in built.parameters():
            weight.grad = torch.randn_like(weight)
        return list(built.parameters())

    def timed(built: Optimizer) -> Run:
        return milliseconds(built.step, device, least)

    def lightly() -> Run:
        own = weights()
        groups = [
            {"params": [weight for weight in own if weight.ndim > 1], "weight_decay": chosen.weight_decay},
            {"params": [weight for weight in own if weight.ndim <= 1], "weight_decay": 0.0},
        ]
        return timed(peer("lightly.utils.lars").LARS(groups, lr=1e-6, momentum=chosen.momentum))

    ours = timed(optimizer.build(chosen, weights(), lr=1e-6))
    yield from compare(f"a step of LARS, {name}", "ms", ours, {"lightly": lightly}, repeats)
