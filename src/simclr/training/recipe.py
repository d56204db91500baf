"""The recipe of a pretraining: the section `pretrain` of params.yaml, and the options that it selects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any

from simclr.core import options, params, params_file
from simclr.core.errors import UserError, gathered, raise_all
from simclr.core.options import Option
from simclr.data import converted, sampling
from simclr.training import pretrain_params
from simclr.training.pretrain_params import PretrainParams
from simclr.views.compose import check_order


@dataclass(frozen=True)
class Recipe:
    """`pretrain` of params.yaml, and the selected options with their own sections."""

    parameters: PretrainParams
    model: Option
    method: Option
    loss: Option
    augmentations: tuple[Option, ...]

    @property
    def options(self) -> list[Option]:
        return [self.model, self.method, self.loss, *self.augmentations]

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: else the method loads weights."""
        return not hasattr(self.method.module, "load")


def load() -> Recipe:
    """Load the recipe of params.yaml.

    Raises:
        UserError: as `checked`.
    """
    return checked(params_file.read(), str(params_file.FILE))


def checked(values: dict[str, Any], origin: str) -> Recipe:
    """The recipe of the nested `values` of params.yaml; other stages may lack their sections. `origin` names the file.

    Raises:
        UserError: a section is missing, or a value is not allowed, alone or together with others.
    """
    parameters = params.section_of(values, "pretrain", PretrainParams, origin)
    return select(parameters, partial(options.checked, values=values, origin=origin), origin)


def select(parameters: PretrainParams, option: Callable[[str, str], Option], origin: str) -> Recipe:
    """The recipe of the options that `parameters` name; `option` returns one by its package and name.

    Raises:
        UserError: values are not allowed together.
    """
    recipe = Recipe(
        parameters=parameters,
        model=option("models", parameters.model),
        method=option("methods", parameters.method),
        loss=option("losses", parameters.loss),
        augmentations=tuple(option("augment", name) for name in parameters.views.augmentations),
    )
    checks = [partial(raise_all, _conflicts(recipe, origin)), partial(check_order, recipe.augmentations, origin)]
    if hasattr(recipe.model.module, "check"):
        checks.append(partial(recipe.model.module.check, recipe.model.parameters, parameters.views.resolution, origin))
    gathered(checks)
    return recipe


def _conflicts(recipe: Recipe, origin: str) -> Iterator[UserError]:
    """The values of `pretrain` that others of `recipe` do not allow."""
    parameters = recipe.parameters
    size, patience = parameters.piece_size, parameters.early_stopping.patience
    if size and parameters.batch_size % size:
        yield params.refusal("pretrain.piece_size", size, f"a divisor of the batch of {parameters.batch_size}", origin)
    yield from sampling.window_refusals("pretrain", parameters.shuffle_window, parameters.batch_size, origin)
    if takes := _small_views_take(recipe):
        yield params.refusal("pretrain.views.small.count", parameters.views.small.count, takes, origin)
    if hasattr(recipe.method.module, "USES_KEYS") and not takes_keys(recipe.loss.module):
        others = [name for name in options.names("losses") if takes_keys(options.module("losses", name))]
        takes = f"{', '.join(others)} where pretrain.method is {recipe.method.name}"
        yield params.refusal("pretrain.loss", recipe.loss.name, takes, origin)
    if parameters.online_probe.lr is None and parameters.early_stopping.watch == "probe_top1":
        takes = "knn_top1 where pretrain.online_probe.lr is null"
        yield params.refusal("pretrain.early_stopping.watch", "probe_top1", takes, origin)
    if parameters.split != "train":
        learners = [part.name for part in (recipe.method, recipe.loss) if hasattr(part.module, "NEEDS_LABELS")]
        learners += ["pretrain.online_probe"] if parameters.online_probe.lr is not None else []
        for learner in learners[:1]:
            takes = f"train, since {learner} learns from labels"
            yield params.refusal("pretrain.split", parameters.split, takes, origin)
    if parameters.split == converted.ALL and patience is not None:
        takes = "null where pretrain.split is all, since val is trained on"
        yield params.refusal("pretrain.early_stopping.patience", patience, takes, origin)


def refusals(recipe: Recipe, images: int) -> Iterator[UserError]:
    """The values of `recipe` that do not go with so many `images` to pretrain on."""
    views, batch_size = recipe.parameters.views, recipe.parameters.batch_size
    if recipe.trains:
        yield from pretrain_params.training_refusals(recipe.parameters, images)
    if hasattr(recipe.method.module, "refusals") and images >= batch_size:
        epoch_views = images // batch_size * batch_size * (views.count + views.small.count)
        yield from recipe.method.module.refusals(recipe.method.parameters, epoch_views)


def refusals_without_labels(recipe: Recipe) -> Iterator[UserError]:
    """The values of `recipe` that need labels: it learns from them, or stops early by an accuracy."""
    parameters, because = recipe.parameters, "since these images have no labels"
    for key, part in (("method", recipe.method), ("loss", recipe.loss)):
        if hasattr(part.module, "NEEDS_LABELS"):
            yield params.refusal(f"pretrain.{key}", part.name, f"one that learns without labels, {because}")
    for key, value in (
        ("online_probe.lr", parameters.online_probe.lr),
        ("early_stopping.patience", parameters.early_stopping.patience),
    ):
        if value is not None:
            yield params.refusal(f"pretrain.{key}", value, f"null, {because}")


def takes_keys(loss: ModuleType) -> bool:
    """Whether the module of a loss compares with keys too."""
    return "keys" in signature(loss.loss).parameters


def _small_views_take(recipe: Recipe) -> str:
    """What `pretrain.views.small.count` takes instead of its value, or nothing."""
    if not recipe.parameters.views.small.count:
        return ""
    if all(option.name != "crop" for option in recipe.augmentations):
        return "0 where crop is not among pretrain.views.augmentations"
    if hasattr(recipe.model.module, "ONE_RESOLUTION"):
        return f"0 with {recipe.model.name}, which takes images of one resolution"
    return ""
