"""Recipes to pretrain by in an instant."""

import copy
from pathlib import Path
from typing import Any

from simclr.core import params_file
from simclr.training import recipe as recipes
from simclr.training.recipe import Recipe

SHIPPED = params_file.read(Path(__file__).parents[2] / "params.yaml")
HEADS = ("simclr", "cpc", "moco", "byol", "adversarial")
"""Methods with a projection head."""
TINY = {
    "epochs": 2, "batch_size": 8, "models__resnet__width": 0.125,
    **{f"methods__{name}__head__{key}": value for name in HEADS for key, value in {"hidden": 8, "output": 6}.items()},
    "methods__moco__queue": 24, "losses__nt_xent__temperature": 0.5, "views__resolution": 8,
    "validation__every_epochs": 1, "validation__neighbors": 3, "optimizer__warmup_epochs": 1,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    """The shipped one, made tiny, with `changes`: section__key, of `pretrain` where it names no other section."""
    values = copy.deepcopy(SHIPPED)
    for path, value in (TINY | changes).items():
        *sections, key = path.split("__")
        section = values if sections and sections[0] in values else values["pretrain"]
        for name in sections:
            section = section[name]
        assert key in section
        section[key] = value
    return recipes.checked(values, "test")
