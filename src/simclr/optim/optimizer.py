"""The optimiser of pretraining, with decay and adaptation only where they belong."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from simclr.core import params
from simclr.optim.lars import LARS


@dataclass(kw_only=True)
class OptimizerParams:
    """`pretrain.optimizer` of params.yaml."""

    name: str = params.choice("lars", "sgd", "adamw")
    lr: float = params.above(0)
    lr_scaling: str = params.choice("linear", "sqrt", "none")
    momentum: float = params.between(0, 0.9999)
    weight_decay: float = params.at_least(0)
    warmup_epochs: float = params.at_least(0)
    clip_grad_norm: float | None = params.above(0)


def build(parameters: OptimizerParams, weights: Iterable[Parameter], lr: float) -> Optimizer:
    """The optimiser over `weights` at the peak learning rate `lr`.

    Weight decay and the adaptation of LARS skip every parameter with at most one dimension: biases and BatchNorm
    (Chen et al. 2020, appendix B.1), told by shape and not by name. `momentum` is the first beta of AdamW.
    """
    trained = [weight for weight in weights if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [weight for weight in trained if weight.ndim > 1],
            "weight_decay": parameters.weight_decay,
        },
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    match parameters.name:
        case "lars":
            groups[1]["adapt"] = False
            return LARS(groups, lr, parameters.momentum)
        case "sgd":
            return SGD(groups, lr, parameters.momentum)
        case _:
            return AdamW(groups, lr, betas=(parameters.momentum, 0.999))
