"""The section `pretrain` of params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from simclr.core import options, params
from simclr.core.errors import UserError
from simclr.data import converted
from simclr.device.precision import has_bf16
from simclr.learning.optimizer import OptimizerParams
from simclr.learning.penalty import PenaltyParams
from simclr.training import validation
from simclr.training.early_stopping import EarlyStoppingParams
from simclr.training.online_probe import OnlineProbeParams
from simclr.training.validation import ValidationParams
from simclr.views.compose import ViewParams


@dataclass(kw_only=True)
class PretrainParams:
    """`pretrain` of params.yaml."""

    seed: int = params.seed()
    split: str = params.choice("train", "unlabelled", converted.ALL)
    shuffle_window: int | None = params.at_least(2)
    epochs: int = params.at_least(1)
    batch_size: int = params.at_least(2)
    piece_size: int | None = params.at_least(2)
    model: str = params.choice(*options.names("models"))
    method: str = params.choice(*options.names("methods"))
    loss: str = params.choice(*options.names("losses"))
    precision: str = params.choice("auto", "fp32", "bf16")
    compile: bool
    deterministic: bool
    views: ViewParams
    optimizer: OptimizerParams
    penalty: PenaltyParams
    validation: ValidationParams
    online_probe: OnlineProbeParams
    early_stopping: EarlyStoppingParams


def in_bf16(parameters: PretrainParams, device: torch.device) -> bool:
    """Whether the forward pass is computed in bfloat16 on `device`."""
    return parameters.precision == "bf16" or (parameters.precision == "auto" and has_bf16(device))


def pieces(parameters: PretrainParams) -> int:
    """The number of pieces in which a batch is computed."""
    return parameters.batch_size // parameters.piece_size if parameters.piece_size else 1


def training_refusals(parameters: PretrainParams, source: int) -> Iterator[UserError]:
    """The values for which the pretraining split has too few images, `source`."""
    if source < 2:
        yield UserError(f"pretraining takes 2 images or more; {parameters.split} has {source}")
    elif parameters.batch_size > source:
        takes = f"at most {source}, the images of {parameters.split}"
        yield params.refusal("pretrain.batch_size", parameters.batch_size, takes)


def process_refusals(parameters: PretrainParams, processes: int) -> Iterator[UserError]:
    """The sizes that so many processes cannot share."""
    for key, size in (("batch_size", parameters.batch_size), ("piece_size", parameters.piece_size)):
        if size and size % processes:
            yield params.refusal(f"pretrain.{key}", size, f"a multiple of the {processes} processes")


def validation_refusals(parameters: PretrainParams, train: int) -> Iterator[UserError]:
    """The values for which `train` has too few images."""
    neighbors, voters = parameters.validation.neighbors, min(train, validation.BANK)
    if neighbors > voters:
        takes = f"at most {voters}, the images of train that vote"
        yield params.refusal("pretrain.validation.neighbors", neighbors, takes)
