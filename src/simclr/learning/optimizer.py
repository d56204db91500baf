"""The optimiser of pretraining, with weight decay and LARS adaptation only on weight matrices."""

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
    """The trainable parameters of `module` as a method's `parameter_groups`: those with weight decay come first.

    Exempt are parameters with at most one dimension, the biases and BatchNorm (Chen et al. 2020, appendix B.1), and the
    `undecayed` parameters of an encoder in `module`: see `models`.
    """
    exempt = {id(part.get_parameter(name)) for part in module.modules() for name in getattr(part, "undecayed", ())}
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    decays = [weight.ndim > 1 and id(weight) not in exempt for weight in trained]
    return [
        {"params": [weight for weight, one in zip(trained, decays, strict=True) if one == decay], "decay": decay}
        for decay in (True, False)
    ]


def with_decay(groups: Iterable[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    """A method's `groups` as those of torch's optimisers and of LARS: `weight_decay`, and its adaptation, where `decay`
    says so."""
    return [
        {**group, "weight_decay": weight_decay if group["decay"] else 0.0, "adapt": group["decay"]} for group in groups
    ]


def build(parameters: OptimizerParams, groups: Iterable[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser of a method's `groups`; `lr` is the peak learning rate of groups without their own.

    `momentum` is the first beta of AdamW.
    """
    torch_groups = with_decay(groups, parameters.weight_decay)
    match parameters.name:
        case "lars":
            return LARS(torch_groups, lr, parameters.momentum)
        case "sgd":
            return SGD(torch_groups, lr, parameters.momentum)
        case _:
            return AdamW(torch_groups, lr, betas=(parameters.momentum, 0.999))
