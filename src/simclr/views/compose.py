"""Random views of samples (Chen et al. 2020, section 3 and appendix A) by a list of augmentations.

All draws are made on the host, where the loader needs the boxes; images are augmented on the device: on a GPU a batch
at a time, on a CPU a chunk of views at a time, which stays in the cache from one augmentation to the next.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simclr.augment import Draws, Ints, Values
from simclr.core import options, params, thread_pool
from simclr.core.errors import UserError
from simclr.core.options import Option
from simclr.data import crop

Images = npt.NDArray[np.float32]
Changes = Sequence[tuple[Option, list[str]]]
"""Augmentations of pixels, each with the names of its rows."""
Scalar = TypeVar("Scalar", bound=np.generic)
_over_rows = thread_pool.row_pool("views")
_CHUNK_BYTES = 1 << 21
"""Size of a chunk of views that goes through all augmentations at once: three of 224 px, so that calls and scratch
memory cost little, and about a core's share of the cache."""


@dataclass(kw_only=True)
class SmallViewParams:
    """`pretrain.views.small` of params.yaml."""

    count: int = params.between(0, 16)
    resolution: int = params.between(1, 4096)
    scale: list[float] = params.interval(0.0001, 1)


@dataclass(kw_only=True)
class ViewParams:
    """`pretrain.views` of params.yaml."""

    count: int = params.between(2, 16)
    resolution: int = params.between(1, 4096)
    augmentations: list[str] = params.several(*options.names("augment"))
    small: SmallViewParams


@dataclass(frozen=True)
class Views:
    """`count` views of each sample, of `resolution` pixels, by `augmentations` in this order.

    A view is a function of the seed, the epoch, the sample's index and the view's number, of which `first` is the
    first. Without an augmentation that crops, a view is the central square, whose side is `share` of the shorter side.
    """

    augmentations: Sequence[Option]
    count: int
    resolution: int
    seed: int
    first: int = 0
    share: float = 1.0

    def draw(self, samples: Ints, epoch: int, heights: Ints, widths: Ints) -> tuple[Ints, dict[str, Values]]:
        """Draw the views of the `samples` (B,), indices into the whole data set, with images of `heights` x `widths`
        pixels: the boxes (B, V, 4) to crop (see `data.crop`), and the values of each other augmentation by its name.
        """
        boxes = crop.central_boxes(heights, widths, self.share)[:, None].repeat(self.count, axis=1)
        drawn: dict[str, Values] = {}
        for augmentation in self.augmentations:
            draws = self.draws(augmentation.name, samples, epoch)
            module, parameters = augmentation.module, augmentation.parameters
            if _cuts(augmentation):
                boxes = module.boxes(boxes, parameters, draws, heights[:, None], widths[:, None])
            else:
                drawn[augmentation.name] = module.draw(parameters, draws, self.resolution)
        return boxes, drawn

    def draws(self, name: str, samples: Ints, epoch: int) -> Draws:
        """The draws of these views under a `name`."""
        return Draws(name, self.seed, epoch, samples, self.count, self.first)

    def rows(self, drawn: Mapping[str, Values], device: torch.device) -> Values:
        """The input of `augment` on `device`: arrays (V * B, ...) in the crops' order, named "augmentation.value".

        They are prepared on the host, in the loader's threads, so that a GPU only receives them.
        """
        rows: Values = {}
        for augmentation in self.augmentations:
            if augmentation.name in drawn:
                values = {value: by_view(array) for value, array in drawn[augmentation.name].items()}
                if not _has_kernel(augmentation, device) and hasattr(augmentation.module, "prepared"):
                    values = augmentation.module.prepared(values, augmentation.parameters)
                rows |= {f"{augmentation.name}.{value}": array for value, array in values.items()}
        return rows

    def augment(self, crops: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """Apply the augmentations of pixels.

        On a CPU a view's bits do not depend on its batch, nor on threads or ranks. On a GPU the views are the same up
        to rounding, some 1e-6 (which can invert a value at the threshold of solarize).

        Args:
            crops: (V * B, 3, S, S) float32 in [0, 1], all first views before all second ones.
            rows: the result of the method `rows` for these views, on the same device.

        Returns:
            The views, same shape and range.
        """
        changes = [
            (augmentation, [name for name in rows if name.startswith(f"{augmentation.name}.")])
            for augmentation in self.augmentations
            if not _cuts(augmentation)
        ]
        if not changes:
            return crops
        return (_augment_in_chunks if crops.device.type == "cpu" else _augment_batch)(crops, rows, changes)


def views_by_size(parameters: ViewParams, augmentations: Sequence[Option], seed: int) -> tuple[Views, ...]:
    """The views of `parameters`: those of full size and, if there are any, the small ones (multi-crop; Caron et al.
    2020, section 3.3), whose crops have a scale of their own."""
    whole = Views(augmentations, parameters.count, parameters.resolution, seed)
    small = parameters.small
    if not small.count:
        return (whole,)
    crops_small = tuple(
        replace(option, parameters=replace(option.parameters, scale=small.scale)) if option.name == "crop" else option
        for option in augmentations
    )
    return whole, Views(crops_small, small.count, small.resolution, seed, first=parameters.count)


def check_order(augmentations: Iterable[Option], origin: str) -> None:
    """Check that all augmentations that crop come first, because the loader does their work; `origin` is the file.

    Raises:
        UserError: an augmentation that crops comes after one of pixels.
    """
    change = ""
    for augmentation in augmentations:
        if not _cuts(augmentation):
            change = augmentation.name
        elif change:
            raise UserError(
                f"{origin}: pretrain.views.augmentations: {augmentation.name} must come before {change}, "
                "because images are cut while they are loaded"
            )


def _cuts(augmentation: Option) -> bool:
    return hasattr(augmentation.module, "boxes")


def _has_kernel(augmentation: Option, device: torch.device) -> bool:
    return device.type == "cpu" and hasattr(augmentation.module, "kernel")


def _augment_batch(crops: Tensor, rows: Mapping[str, Tensor], changes: Changes) -> Tensor:
    for augmentation, names in changes:
        crops = augmentation.module.apply(crops, {_value_name(name): rows[name] for name in names})
    return crops


def _augment_in_chunks(crops: Tensor, rows: Mapping[str, Tensor], changes: Changes) -> Tensor:
    views = torch.empty_like(crops)
    arrays = [rows[name].numpy() for _, names in changes for name in names]
    _over_rows(partial(_augment_chunks, changes), crops.numpy(), views.numpy(), *arrays)
    return views


def _augment_chunks(changes: Changes, crops: Images, views: Images, *rows: npt.NDArray[np.generic]) -> None:
    """Augment `crops` into `views` (N, 3, S, S), chunk by chunk; `rows` are the arrays (N, ...) of all `changes`."""
    height = max(1, _CHUNK_BYTES // max(1, crops[:1].nbytes))
    modules = [(augmentation.module, names) for augmentation, names in changes]  # each looks it up, in microseconds
    for start in range(0, len(crops), height):
        chunk = slice(start, start + height)
        part = views[chunk]
        part[:] = crops[chunk]
        remaining = iter(rows)
        for module, names in modules:
            values = [next(remaining)[chunk] for _ in names]
            if hasattr(module, "kernel"):
                module.kernel(part, *values)
            else:
                named = dict(zip(map(_value_name, names), map(torch.from_numpy, values), strict=True))
                part[:] = module.apply(torch.from_numpy(part), named).numpy()


def _value_name(name: str) -> str:
    """The value's name in "augmentation.value", the key of `Views.rows`."""
    return name.partition(".")[2]


def by_view(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """(B, V, ...) to (V * B, ...), in the order of the crops: all first views come first."""
    samples, views, *shape = values.shape
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(samples * views, *shape)
