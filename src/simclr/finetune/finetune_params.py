"""The section `finetune` of params.yaml."""

from collections.abc import Iterator
from dataclasses import dataclass

from simclr.core import params, params_file
from simclr.core.errors import UserError, raise_all
from simclr.data import sampling


@dataclass(kw_only=True)
class FinetuneParams:
    """`finetune` of params.yaml."""

    seed: int = params.seed()
    head_layers: int = params.between(0, 2)
    fractions: list[float] = params.shares()
    label_list: str = params.path()
    epochs: list[int] = params.each_at_least(1)
    batch_size: int = params.at_least(2)
    shuffle_window: int | None = params.at_least(2)
    lr: list[float] = params.each_above(0)
    momentum: float = params.between(0, 0.9999)
    weight_decay: float = params.at_least(0)
    crop_scale: list[float] = params.interval(0.0001, 1)
    flip: float = params.between(0, 1)


def check(parameters: FinetuneParams, origin: str) -> None:
    """Compare the values.

    Raises:
        UserError: there is not one number of epochs for each fraction, or one for all of them; there are fractions
            beside a list; or fewer samples are shuffled at a time than a batch has.
    """
    raise_all(sampling.window_refusals("finetune", parameters.shuffle_window, parameters.batch_size, origin))
    if parameters.label_list != params.NO_FILE and parameters.fractions:
        takes = f"[] where finetune.label_list is not {params.NO_FILE}"
        raise params.refusal("finetune.fractions", parameters.fractions, takes, origin)
    count = len(parameters.fractions)
    if len(parameters.epochs) not in (1, count):
        takes = "one integer" + (f", or {count}: one for each of finetune.fractions" if count > 1 else "")
        raise params.refusal("finetune.epochs", parameters.epochs, takes, origin)


def check_head(parameters: FinetuneParams, layers: int, origin: str = str(params_file.FILE)) -> None:
    """Compare with a projection head of so many `layers`, 0 if the method has none.

    Raises:
        UserError: more layers are asked for than the head has before its last one.
    """
    most = max(layers - 1, 0)
    if parameters.head_layers > most:
        because = f"the projection head has {layers} layers" if layers else "pretrain.method has no projection head"
        takes = f"{'0 to ' if most else ''}{most}, since {because}"
        raise params.refusal("finetune.head_layers", parameters.head_layers, takes, origin)


def check_source(parameters: FinetuneParams, source: str, origin: str = str(params_file.FILE)) -> None:
    """Compare with `fetch.source`.

    Raises:
        UserError: there is a list of images, which have no names in this source.
    """
    if parameters.label_list != params.NO_FILE and source != "folder":
        takes = f"{params.NO_FILE} where fetch.source is {source}, whose images are no files"
        raise params.refusal("finetune.label_list", parameters.label_list, takes, origin)


def refusals(parameters: FinetuneParams, train: int) -> Iterator[UserError]:
    """The values for which `train` has too few images."""
    if (parameters.fractions or parameters.label_list != params.NO_FILE) and parameters.batch_size > train:
        takes = f"at most {train}, the images of train"
        yield params.refusal("finetune.batch_size", parameters.batch_size, takes)


def fraction_epochs(parameters: FinetuneParams) -> list[tuple[float, int]]:
    """Each fraction with its epochs."""
    epochs = parameters.epochs * (len(parameters.fractions) if len(parameters.epochs) == 1 else 1)
    return list(zip(parameters.fractions, epochs, strict=True))
