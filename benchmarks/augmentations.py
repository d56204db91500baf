"""Each augmentation alone, on a batch with a strength of its own for every image.

    python -m benchmarks --only augmentations

torchvision's functions take one strength for all they are given, so they are called once per image, as a user has to;
kornia's take one per image, as ours do.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.contest import Row, Run, compare, milliseconds, peer, recipe
from benchmarks.loading import parameters_of, views_of
from simclr.augment import Ints, Values, grayscale, jitter, solarize
from simclr.augment.blur import kernel_size
from simclr.core.options import Option
from simclr.data import crop, loader
from simclr.device import transfer
from simclr.views.compose import Views

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
Floats = npt.NDArray[np.floating[Any]]
Contest = tuple[Call, Call, Callable[[], Call]]
"""Ours, torchvision's, and what makes kornia's ready."""


def rows(device: torch.device, *, count: int, size: int, least: float, repeats: int) -> Iterator[Row]:
    """The rows of the table, for `count` images of `size` pixels; each repeat times at least `least` seconds."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator).to(device)
    unflipped = "pretrain.views.augmentations=[crop,jitter,grayscale,blur]"  # ours is a part of the crop
    chosen = views_of(recipe("imagenet", unflipped, f"pretrain.views.resolution={size}"))
    for name, (ours, torchvision, kornia) in (_changes(images, chosen) | _crops(count, chosen, device)).items():
        peers: dict[str, Callable[[], Run]] = {
            "torchvision v2, image by image": partial(milliseconds, torchvision, device, least),
            "kornia": lambda ready=kornia: milliseconds(ready(), device, least),  # type: ignore[misc]
        }
        yield from compare(f"{name}, {count} x {size} px", "ms", milliseconds(ours, device, least), peers, repeats)
    samples = count // 2
    _, drawn = _draw(chosen, samples, size)
    together = images[: 2 * samples]
    yield from compare(
        f"all of them, {2 * samples} views of {size} px",
        "ms",
        milliseconds(lambda: _augmented(together, drawn, chosen), device, least),
        {"kornia": lambda: milliseconds(_kornia_all(together, chosen), device, least)},
        repeats,
    )


def _augmented(images: Tensor, drawn: Mapping[str, Values], views: Views) -> Tensor:
    rows = transfer.pack(views.rows(drawn, images.device), images.device)
    return views.augment(images, rows.to(images.device))


def _draw(views: Views, samples: int, side: int) -> tuple[Ints, dict[str, Values]]:
    whole = np.full(samples, side)
    return views.draw(np.arange(samples), 0, whole, whole)


def _changes(images: Tensor, chosen: Views) -> dict[str, Contest]:
    def ours(name: str, parameters: Any) -> tuple[Call, Values]:
        alone = dataclasses.replace(chosen, augmentations=[Option("augment", name, parameters)], count=1)
        _, drawn = _draw(alone, len(images), chosen.resolution)
        return lambda: _augmented(images, drawn, alone), drawn[name]

    still = jitter.Params(probability=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
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
        strength = getattr(parameters_of(chosen, "jitter"), name)
        own, values = ours("jitter", dataclasses.replace(still, **{name: strength}))
        factors = values["factors"][:, 0, number]
        one_by_one = _one_by_one(getattr(functional, f"adjust_{name}"), images, factors)
        found[name] = own, one_by_one, partial(_kornia, in_kornia, images, unit * factors)
    own, _ = ours("grayscale", grayscale.Params(probability=1.0))
    found["gray"] = (
        own,
        lambda: torch.stack([functional.rgb_to_grayscale(image, 3) for image in images]),
        lambda: _kornia_gray(images),
    )
    own, values = ours("blur", dataclasses.replace(parameters_of(chosen, "blur"), probability=1.0))
    sigmas = values["sigmas"][:, 0]
    found["blur"] = (
        own,
        _one_by_one(lambda image, sigma: functional.gaussian_blur(image, both, [sigma, sigma]), images, sigmas),
        lambda: _kornia_blur(images, sigmas, both),
    )
    own, _ = ours("solarize", solarize.Params(probability=1.0, threshold=_HALF))
    found["solarize"] = (
        own,
        lambda: torch.stack([functional.solarize(image, _HALF) for image in images]),
        partial(_kornia, "solarize", images, np.full(len(images), _HALF)),
    )
    return found


def _crops(count: int, chosen: Views, device: torch.device) -> dict[str, Contest]:
    generator, size = torch.Generator().manual_seed(0), chosen.resolution
    stored = torch.randint(0, 256, (count, _SOURCE, _SOURCE, 3), generator=generator, dtype=torch.uint8)
    boxes, _ = _draw(dataclasses.replace(chosen, count=1), count, _SOURCE)
    arrays = {"pixels": stored.numpy(), "boxes.0": boxes, "filters.0": crop.filters(boxes, size)}
    loaded = transfer.pack(arrays, device)
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
            lambda: loader.crops(loaded.to(device), 0, size),
            torchvision,
            lambda: _kornia_crop(floats, torch.from_numpy(boxes[:, 0]), size),
        )
    }


def _one_by_one(operation: Callable[[Tensor, float], Tensor], images: Tensor, values: Floats) -> Call:
    numbers = values.tolist()
    return lambda: torch.stack([operation(image, value) for image, value in zip(images, numbers, strict=True)])


def _kornia(name: str, images: Tensor, values: Floats) -> Call:
    operation = getattr(peer("kornia.enhance"), name)
    on_device = torch.from_numpy(values).float().to(images.device)
    return lambda: operation(images, on_device)


def _kornia_gray(images: Tensor) -> Call:
    grayscale = peer("kornia.color").rgb_to_grayscale
    return lambda: grayscale(images).expand_as(images).contiguous()


def _kornia_blur(images: Tensor, sigmas: Floats, kernel: tuple[int, int]) -> Call:
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


def _kornia_all(images: Tensor, views: Views) -> Call:
    kornia: Any = peer("kornia.augmentation")
    size, chosen = kernel_size(images.shape[-1]), partial(parameters_of, views)
    color, blurred = chosen("jitter"), chosen("blur")
    pipeline = kornia.AugmentationSequential(
        kornia.ColorJitter(
            color.brightness, color.contrast, color.saturation, color.hue, p=color.probability, same_on_batch=False
        ),
        kornia.RandomGrayscale(p=chosen("grayscale").probability),
        kornia.RandomGaussianBlur((size, size), tuple(blurred.sigma), p=blurred.probability),
        data_keys=["input"],
        same_on_batch=False,
    )
    return lambda: pipeline(images)
