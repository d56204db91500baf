"""The random views of samples (Chen et al. 2020, section 3 and appendix A), made by a list of augmentations.

Draws are made on the host, where the loader needs the boxes; the images are changed on the device: on a GPU a whole
batch at a time, on a CPU a few views at a time, by one augmentation after another while they lie in its cache.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
"""Augmentations that change pixels, each with the names of its rows."""
Scalar = TypeVar("Scalar", bound=np.generic)
_over_rows = thread_pool.row_pool("views")
_PIECE = 1 << 18
"""Bytes of views that are changed by all augmentations before the next ones are: what one core's cache holds."""


@dataclass(kw_only=True)
class ViewParams:
    """`pretrain.views` of params.yaml."""

    count: int = params.between(2, 16)
    resolution: int = params.between(1, 4096)
    augmentations: list[str] = params.several(*options.names("augment"))


@dataclass(frozen=True)
class Views:
    """`count` views of any samples, of `resolution` pixels, made by `augmentations` in this order.

    A view is a function of the seed, the epoch, the sample's index and the view's number. Without an augmentation that
    cuts, a view is the central square.
    """

    augmentations: Sequence[Option]
    count: int
    resolution: int
    seed: int

    def draw(self, samples: Ints, epoch: int, heights: Ints, widths: Ints) -> tuple[Ints, dict[str, Values]]:
        """What happens to the views of the `samples` (B,), indices into the whole data set, whose images measure
        `heights` x `widths`: the boxes (B, V, 4) that are cut (see `data.crop`), and by the augmentation what it drew.
        """
        boxes = crop.central_boxes(heights, widths, share=1.0)[:, None].repeat(self.count, axis=1)
        drawn: dict[str, Values] = {}
        for augmentation in self.augmentations:
            draws = Draws(augmentation.name, self.seed, epoch, samples, self.count)
            module, parameters = augmentation.module, augmentation.parameters
            if _cuts(augmentation):
                boxes = module.boxes(boxes, parameters, draws, heights[:, None], widths[:, None])
            else:
                drawn[augmentation.name] = module.draw(parameters, draws, self.resolution)
        return boxes, drawn

    def rows(self, drawn: Mapping[str, Values], device: torch.device) -> Values:
        """What `augment` on `device` takes, (V * B, ...) in the order of the crops, under "augmentation.value".

        Made on the host, where the loader's threads have time for it, so that a GPU only has to be sent it.
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
        """Apply the augmentations that change pixels.

        On a CPU a view's bits do not depend on the batch that it is in, nor on threads or ranks. On a GPU the views are
        the same up to rounding, some 1e-6 (where a value is at the very threshold of solarize, that can invert it).

        Args:
            crops: (V * B, 3, S, S) float32 in [0, 1], all first views before all second ones.
            rows: what the method of that name returned for these views, on the same device.

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
        return (_in_pieces if crops.device.type == "cpu" else _at_once)(crops, rows, changes)


def check_order(augmentations: Iterable[Option], origin: str) -> None:
    """Compare the order of the list that `origin` has with what a loader can do.

    Raises:
        UserError: one that cuts comes after one that changes pixels.
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


def _at_once(crops: Tensor, rows: Mapping[str, Tensor], changes: Changes) -> Tensor:
    for augmentation, names in changes:
        crops = augmentation.module.apply(crops, {_value(name): rows[name] for name in names})
    return crops


def _in_pieces(crops: Tensor, rows: Mapping[str, Tensor], changes: Changes) -> Tensor:
    views = torch.empty_like(crops)
    arrays = [rows[name].numpy() for _, names in changes for name in names]
    _over_rows(partial(_change, changes), crops.numpy(), views.numpy(), *arrays)
    return views


def _change(changes: Changes, crops: Images, views: Images, *rows: npt.NDArray[np.generic]) -> None:
    """Make `views` (N, 3, S, S) of `crops`, a piece after another; `rows` are the arrays (N, ...) of all `changes`."""
    height = max(1, _PIECE // max(1, crops[:1].nbytes))
    for start in range(0, len(crops), height):
        piece = slice(start, start + height)
        part = views[piece]
        part[:] = crops[piece]
        left = iter(rows)
        for augmentation, names in changes:
            values = [next(left)[piece] for _ in names]
            if hasattr(augmentation.module, "kernel"):
                augmentation.module.kernel(part, *values)
            else:
                named = dict(zip(map(_value, names), map(torch.from_numpy, values), strict=True))
                part[:] = augmentation.module.apply(torch.from_numpy(part), named).numpy()


def _value(name: str) -> str:
    """What `Views.rows` calls "augmentation.value"."""
    return name.partition(".")[2]


def by_view(values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """(B, V, ...) to (V * B, ...), in the order of the crops: all first views come first."""
    samples, views, *shape = values.shape
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(samples * views, *shape)
