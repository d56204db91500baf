"""Augmentations with parameters to try them by."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simclr.core import options, params_file
from simclr.core.options import Option
from simclr.views.compose import Views

SHIPPED = params_file.read(Path(__file__).parents[2] / "params.yaml")["augment"]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
PAPER = ["crop", "flip", "jitter", "grayscale", "blur", "solarize"]
ORDER = [*PAPER, *(name for name in options.names("augment") if name not in PAPER)]
STRONG = {
    "crop": {"scale": [0.05, 1.0], "ratio": [0.5, 2.0]},
    "jitter": {"probability": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.5},
    "grayscale": {"probability": 0.2},
    "solarize": {"probability": 0.3, "threshold": 0.5},
}


def augmentation(name: str, **changes: Any) -> Option:
    """The augmentation `name`, as strong as it can be, with `changes`."""
    section = SHIPPED[name] | STRONG.get(name, {}) | changes
    return options.checked("augment", name, {"augment": {name: section}}, "test")


def views(resolution: int, names: list[str] | None = None, count: int = 2, seed: int = 0, **changes: Any) -> Views:
    """Views by the augmentations `names`, or all, with `changes` (name__key)."""
    by_name: dict[str, dict[str, Any]] = {name: {} for name in ORDER}
    for path, value in changes.items():
        name, key = path.split("__")
        by_name[name][key] = value
    given = [augmentation(name, **by_name[name]) for name in (ORDER if names is None else names)]
    return Views(given, count, resolution, seed)


def pictures(count: int, size: int) -> Tensor:
    """(N, 3, S, S), N >= 6: colors at random, black, white, gray, and two channels alike."""
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(size))
    images[0], images[1] = 0, 1
    images[2] = images[2, :1]
    images[3, 0] = images[3, 1]
    images[4, 2] = images[4, 1]
    images[5] = (images[5] * 3).floor() / 2
    return images
