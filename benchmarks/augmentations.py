"""Each augmentation alone, on a batch with a strength of its own for every image.

    python -m benchmarks --only augmentations

torchvision's functions take one strength for all they are given, so they are called once per image, as a user has to;
kornia's take one per image, as ours do.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.contest import Row, Run, compare, milliseconds, peer
from benchmarks.loading import view_params
from simclr.augment import views
from simclr.augment.blur import kernel_size
from simclr.augment.views import Draws, ViewParams
from simclr.data import crop, loader
from simclr.device import transfer

_SOURCE = 256
"""Pixels of the square images that are cut."""
_HALF = 0.5

NOTES = """\
- Every contestant gets the same images on the device and the same strengths; all images are changed. Ours is the
  whole function of a training step with everything else switched off, the way of its strengths to the device
  included.
- Images are float32, but for "crop and resize": there ours and torchvision cut what is stored, uint8, and turn it into
  floats; kornia cuts floats, and its crop_and_resize does not antialias, as the others do.
- "all of them": jitter, gray and blur with SimCLR's probabilities, on views that are cut already; kornia's
  ColorJitter draws one order of its operations for the batch, ours one for each view."""

Call = Callable[[], object]
Contest = tuple[Call, Call, Callable[[], Call]]
"""Ours, torchvision's, and what makes kornia's ready."""


def rows(device: torch.device, *, count: int, size: int, least: float, repeats: int) -> Iterator[Row]:
    """The rows of the table, for `count` images of `size` pixels; each repeat times at least `least` seconds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator).to(device)
    chosen = dataclasses.replace(view_params("imagenet"), resolution=size, flip=0.0)  # ours is a part of the crop
    for name, (ours, torchvision, kornia) in (_changes(images, chosen) | _crops(count, chosen, device)).items():
        peers: dict[str, Callable[[], Run]] = {
            "torchvision v2, image by image": partial(milliseconds, torchvision, device, least),
            "kornia": lambda ready=kornia: milliseconds(ready(), device, least),  # type: ignore[misc]
        }
        yield from compare(f"{name}, {count} x {size} px", "ms", milliseconds(ours, device, least), peers, repeats)
    samples = count // 2
    draws = _drawn(chosen, samples, size, views_each=2)
    together = images[: 2 * samples]
    yield from compare(
        f"all of them, {2 * samples} views of {size} px",
        "ms",
        milliseconds(lambda: _augmented(together, draws, chosen), device, least),
        {"kornia": lambda: milliseconds(_kornia_all(together, chosen), device, least)},
        repeats,
    )


def _augmented(images: Tensor, draws: Draws, parameters: ViewParams) -> Tensor:
    rows = transfer.packed(views.rows(draws, parameters, images.device), images.device)
    return views.augment(images, rows.to(images.device), parameters)


def _drawn(parameters: ViewParams, samples: int, side: int, views_each: int = 1) -> Draws:
    whole = np.full(samples, side)
    return views.draw(parameters, whole, whole, 0, 0, np.arange(samples), views_each)


def _changes(images: Tensor, chosen: ViewParams) -> dict[str, Contest]:
    off: dict[str, Any] = dict.fromkeys(
        ("jitter", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "solarize"), 0.0
    )

    def ours(**on: float) -> tuple[Call, Draws]:
        parameters = dataclasses.replace(chosen, **off | on)
        draws = _drawn(parameters, len(images), chosen.resolution)
        return lambda: _augmented(images, draws, parameters), draws

    found: dict[str, Contest] = {}
    functional, both = v2.functional, (kernel_size(chosen.resolution),) * 2
    for number, (name, in_kornia, unit) in enumerate(
        (
            ("brightness", "adjust_brightness_accumulative", 1.0),
            ("contrast", "adjust_contrast_with_mean_subtraction", 1.0),
            ("saturation", "adjust_saturation_with_gray_subtraction", 1.0),
            ("hue", "adjust_hue", 2 * torch.pi),
        )
    ):
        own, draws = ours(jitter=1.0, **{name: getattr(chosen, name)})
        factors = draws.factors[:, 0, number]
        one_by_one = _one_by_one(getattr(functional, f"adjust_{name}"), images, factors)
        found[name] = own, one_by_one, partial(_kornia, in_kornia, images, unit * factors)
    own, _ = ours(grayscale=1.0)
    found["gray"] = (
        own,
        lambda: torch.stack([functional.rgb_to_grayscale(image, 3) for image in images]),
        lambda: _kornia_gray(images),
    )
    own, draws = ours(blur=1.0)
    sigmas = draws.sigma[:, 0]
    found["blur"] = (
        own,
        _one_by_one(lambda image, sigma: functional.gaussian_blur(image, both, [sigma, sigma]), images, sigmas),
        lambda: _kornia_blur(images, sigmas, both),
    )
    own, _ = ours(solarize=1.0, solarize_threshold=_HALF)
    found["solarize"] = (
        own,
        lambda: torch.stack([functional.solarize(image, _HALF) for image in images]),
        partial(_kornia, "solarize", images, np.full(len(images), _HALF)),
    )
    return found


def _crops(count: int, chosen: ViewParams, device: torch.device) -> dict[str, Contest]:
    generator, size = torch.Generator().manual_seed(0), chosen.resolution
    stored = torch.randint(0, 256, (count, _SOURCE, _SOURCE, 3), generator=generator, dtype=torch.uint8)
    boxes = _drawn(chosen, count, _SOURCE).boxes
    arrays = {"pixels": stored.numpy(), "boxes": boxes, "filters": crop.filters(boxes, size)}
    loaded = transfer.packed(arrays, device)
    planes = stored.to(device).permute(0, 3, 1, 2)
    floats = planes.contiguous() / 255

    def torchvision() -> Tensor:
        cut = [
            v2.functional.resized_crop(image, *box, [size, size], antialias=True)
            for image, box in zip(planes, boxes[:, 0].tolist(), strict=True)
        ]
        return torch.stack(cut) / 255

    return {
        "crop and resize": (
            lambda: loader.crops(loaded.to(device), size),
            torchvision,
            lambda: _kornia_crop(floats, torch.from_numpy(boxes[:, 0]), size),
        )
    }


def _one_by_one(operation: Callable[[Tensor, float], Tensor], images: Tensor, values: npt.NDArray[np.float64]) -> Call:
    numbers = values.tolist()
    return lambda: torch.stack([operation(image, value) for image, value in zip(images, numbers, strict=True)])


def _kornia(name: str, images: Tensor, values: npt.NDArray[np.float64]) -> Call:
    operation = getattr(peer("kornia.enhance"), name)
    on_device = torch.from_numpy(values).float().to(images.device)
    return lambda: operation(images, on_device)


def _kornia_gray(images: Tensor) -> Call:
    grayscale = peer("kornia.color").rgb_to_grayscale
    return lambda: grayscale(images).expand_as(images).contiguous()


def _kornia_blur(images: Tensor, sigmas: npt.NDArray[np.float64], kernel: tuple[int, int]) -> Call:
    blur = peer("kornia.filters").gaussian_blur2d
    both = torch.from_numpy(sigmas).float()[:, None].repeat(1, 2).to(images.device)
    return lambda: blur(images, kernel, both)


def _kornia_crop(source: Tensor, boxes: Tensor, size: int) -> Call:
    cut = peer("kornia.geometry.transform").crop_and_resize
    top, left, height, width = boxes.float().unbind(-1)
    bottom, right = top + height - 1, left + width - 1
    corners = [torch.stack(corner, -1) for corner in ((left, top), (right, top), (right, bottom), (left, bottom))]
    quadrangles = torch.stack(corners, 1).to(source.device)
    return lambda: cut(source, quadrangles, (size, size))


def _kornia_all(images: Tensor, chosen: ViewParams) -> Call:
    kornia: Any = peer("kornia.augmentation")
    size = kernel_size(images.shape[-1])
    pipeline = kornia.AugmentationSequential(
        kornia.ColorJitter(
            chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue, p=chosen.jitter, same_on_batch=False
        ),
        kornia.RandomGrayscale(p=chosen.grayscale),
        kornia.RandomGaussianBlur((size, size), tuple(chosen.blur_sigma), p=chosen.blur),
        data_keys=["input"],
        same_on_batch=False,
    )
    return lambda: pipeline(images)
