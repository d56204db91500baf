"""The optimiser of pretraining, with decay and adaptation only where they belong."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from simclr.core import params
from simclr.learning.lars import LARS


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


def by_decay(module: nn.Module) -> list[dict[str, Any]]:
    """The parameters of `module` that need a gradient, as a method's `parameter_groups`: first those that decay.

    Every parameter with at most one dimension is spared: biases and BatchNorm (Chen et al. 2020, appendix B.1), told by
    shape and not by name; and those of an encoder within it that are `undecayed`: see `models`.
    """
    spared = {id(part.get_parameter(name)) for part in module.modules() for name in getattr(part, "undecayed", ())}
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    decays = [weight.ndim > 1 and id(weight) not in spared for weight in trained]
    return [
        {"params": [weight for weight, one in zip(trained, decays, strict=True) if one == decay], "decay": decay}
        for decay in (True, False)
    ]


def build(parameters: OptimizerParams, groups: Iterable[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser over a method's `groups`, at the peak learning rate `lr` where a group has none of its own.

    Weight decay and the adaptation of LARS apply where a group says so. `momentum` is the first beta of AdamW.
    """
    own: list[dict[str, Any]] = [
        {
            "params": group["params"],
            "lr": group.get("lr", lr),
            "weight_decay": parameters.weight_decay if group["decay"] else 0.0,
            **({"adapt": group["decay"]} if parameters.name == "lars" else {}),
        }
        for group in groups
    ]
    match parameters.name:
        case "lars":
            return LARS(own, lr, parameters.momentum)
        case "sgd":
            return SGD(own, lr, parameters.momentum)
        case _:
            return AdamW(own, lr, betas=(parameters.momentum, 0.999))
