"""The section `finetune` of params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass

from simclr.core import params
from simclr.core.errors import UserError


@dataclass(kw_only=True)
class FinetuneParams:
    """`finetune` of params.yaml."""

    seed: int = params.seed()
    fractions: list[float] = params.shares()
    epochs: list[int] = params.each_at_least(1)
    batch_size: int = params.at_least(2)
    lr: list[float] = params.each_above(0)
    momentum: float = params.between(0, 0.9999)
    weight_decay: float = params.at_least(0)
    crop_scale: list[float] = params.interval(0.0001, 1)
    flip: float = params.between(0, 1)


def check(parameters: FinetuneParams, origin: str) -> None:
    """Compare the lists.

    Raises:
        UserError: there is not one number of epochs for each fraction, or one for all of them.
    """
    count = len(parameters.fractions)
    if len(parameters.epochs) not in (1, count):
        takes = "one integer" + (f", or {count}: one for each of finetune.fractions" if count > 1 else "")
        raise params.refusal("finetune.epochs", parameters.epochs, takes, origin)


def refusals(parameters: FinetuneParams, train: int) -> Iterator[UserError]:
    """The values for which `train` has too few images."""
    if parameters.fractions and parameters.batch_size > train:
        takes = f"at most {train}, the images of train"
        yield params.refusal("finetune.batch_size", parameters.batch_size, takes)


def fraction_epochs(parameters: FinetuneParams) -> list[tuple[float, int]]:
    """Each fraction with its epochs."""
    epochs = parameters.epochs * (len(parameters.fractions) if len(parameters.epochs) == 1 else 1)
    return list(zip(parameters.fractions, epochs, strict=True))
