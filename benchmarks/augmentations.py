"""Each augmentation alone, on a batch with a strength of its own for every image.

    python -m benchmarks --only augmentations

torchvision's functions take one strength for all they are given, so they are called once per image, as a user has to;
kornia's take one per image, as ours do.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.contest import Row, Run, compare, milliseconds, peer
from benchmarks.loading import view_params
from simclr import color, crop, views
from simclr.blur import gaussian_blur, kernel_size
from simclr.views import ViewParams

_SOURCE = 256
"""Pixels of the square images that are cut."""
_HALF = 0.5

NOTES = """\
- Every contestant gets the same float32 images on the device and the same strengths; all images are changed.
- kornia's crop_and_resize does not antialias, ours and torchvision's do.
- "all of them": flip, jitter, gray and blur with SimCLR's probabilities, on views that are cut already; kornia's
  ColorJitter draws one order of its operations for the batch, ours one for each view."""


def rows(device: torch.device, *, count: int, size: int, least: float, repeats: int) -> Iterator[Row]:
    """The rows of the table, for `count` images of `size` pixels; each repeat times at least `least` seconds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator).to(device)
    source = torch.rand(count, 3, _SOURCE, _SOURCE, generator=generator).to(device)
    as_stored = source.permute(0, 2, 3, 1).contiguous()
    drawn = torch.rand(count, generator=generator)
    factors, shifts, sigmas = 0.2 + 1.6 * drawn, 0.4 * drawn - 0.2, 0.1 + 1.9 * drawn
    parameters = view_params("imagenet")
    whole = np.full(count, _SOURCE)
    boxes = torch.from_numpy(views.draw(parameters, whole, whole, 0, 0, np.arange(count), 1).boxes)
    taps = kernel_size(size)
    every: dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], Callable[[], object]]]] = {
        **{
            name.removeprefix("adjust_"): (
                _ours(getattr(color, name), images, strengths),
                _one_by_one(getattr(v2.functional, name), images, strengths),
                partial(_kornia, name + suffix, images, kornias),
            )
            for name, suffix, strengths, kornias in (
                ("adjust_brightness", "_accumulative", factors, factors),
                ("adjust_contrast", "_with_mean_subtraction", factors, factors),
                ("adjust_saturation", "_with_gray_subtraction", factors, factors),
                ("adjust_hue", "", shifts, 2 * torch.pi * shifts),
            )
        },
        "gray": (
            lambda: color.grayscale(images).expand_as(images).contiguous(),
            lambda: torch.stack([v2.functional.rgb_to_grayscale(image, 3) for image in images]),
            lambda: _kornia_gray(images),
        ),
        "blur": (
            _ours(gaussian_blur, images, sigmas),
            lambda: torch.stack(
                [
                    v2.functional.gaussian_blur(image, [taps, taps], [sigma, sigma])
                    for image, sigma in zip(images, sigmas.tolist(), strict=True)
                ]
            ),
            lambda: _kornia_blur(images, sigmas, taps),
        ),
        "solarize": (
            lambda: color.solarize(images, _HALF),
            lambda: torch.stack([v2.functional.solarize(image, _HALF) for image in images]),
            lambda: _kornia("solarize", images, torch.full((count,), _HALF)),
        ),
        "crop and resize": (
            lambda: crop.resized_crops(as_stored, boxes.to(device), size),
            lambda: torch.stack(
                [
                    v2.functional.resized_crop(image, *box, [size, size], antialias=True)
                    for image, box in zip(source, boxes[:, 0].tolist(), strict=True)
                ]
            ),
            lambda: _kornia_crop(source, boxes[:, 0], size),
        ),
    }
    for name, (own, torchvision, kornia) in every.items():
        peers: dict[str, Callable[[], Run]] = {
            "torchvision v2, image by image": lambda call=torchvision: milliseconds(call, device, least),  # type: ignore[misc]
            "kornia": lambda ready=kornia: milliseconds(ready(), device, least),  # type: ignore[misc]
        }
        what = f"{name}, {count} x {size} px"
        yield from compare(what, "ms", milliseconds(own, device, least), peers, repeats)
    yield from _all(images, parameters, least, repeats)


def _all(images: Tensor, parameters: ViewParams, least: float, repeats: int) -> Iterator[Row]:
    count, size = len(images), images.shape[-1]
    whole = np.full(count // 2, size)
    draws = views.draw(parameters, whole, whole, 0, 0, np.arange(count // 2))
    what = f"all of them, {count} views of {size} px"
    own = milliseconds(lambda: views.augment(images, draws, parameters), images.device, least)
    yield from compare(
        what, "ms", own,
        {"kornia": lambda: milliseconds(_kornia_all(images, parameters), images.device, least)}, repeats,
    )  # fmt: skip


def _ours(operation: Callable[[Tensor, Tensor], Tensor], images: Tensor, values: Tensor) -> Callable[[], object]:
    on_device = values.to(images.device)
    return lambda: operation(images, on_device)


def _one_by_one(operation: Callable[[Tensor, float], Tensor], images: Tensor, values: Tensor) -> Callable[[], object]:
    numbers = values.tolist()
    return lambda: torch.stack([operation(image, value) for image, value in zip(images, numbers, strict=True)])


def _kornia(name: str, images: Tensor, values: Tensor) -> Callable[[], object]:
    operation = getattr(peer("kornia.enhance"), name)
    return _ours(operation, images, values)


def _kornia_gray(images: Tensor) -> Callable[[], object]:
    grayscale = peer("kornia.color").rgb_to_grayscale
    return lambda: grayscale(images).expand_as(images).contiguous()


def _kornia_blur(images: Tensor, sigmas: Tensor, taps: int) -> Callable[[], object]:
    blur = peer("kornia.filters").gaussian_blur2d
    both = sigmas[:, None].repeat(1, 2).to(images.device)
    return lambda: blur(images, (taps, taps), both)


def _kornia_crop(source: Tensor, boxes: Tensor, size: int) -> Callable[[], object]:
    cut = peer("kornia.geometry.transform").crop_and_resize
    top, left, height, width = boxes.float().unbind(-1)
    bottom, right = top + height - 1, left + width - 1
    corners = [torch.stack(corner, -1) for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    quadrangles = torch.stack(corners, 1).to(source.device)
    return lambda: cut(source, quadrangles, (size, size))


def _kornia_all(images: Tensor, chosen: ViewParams) -> Callable[[], object]:
    kornia: Any = peer("kornia.augmentation")
    size = kernel_size(images.shape[-1])
    pipeline = kornia.AugmentationSequential(
        kornia.RandomHorizontalFlip(p=chosen.flip),
        kornia.ColorJitter(
            chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue, p=chosen.jitter, same_on_batch=False
        ),
        kornia.RandomGrayscale(p=chosen.grayscale),
        kornia.RandomGaussianBlur((size, size), tuple(chosen.blur_sigma), p=chosen.blur),
        data_keys=["input"],
        same_on_batch=False,
    )
    return lambda: pipeline(images)
