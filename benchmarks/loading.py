"""Two-view loading: finished float views per second, from the files to the device.

    python -m benchmarks --only loading

Whatever needs time to start (workers, threads, compilation) is warmed up by some batches that are not timed, and all
timed batches come from the middle of an endless stream.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import io, transforms
from torchvision.transforms import v2

from benchmarks import images
from benchmarks.contest import CORES, OURS, WORKERS, Row, Run, compare, finished, interleaved, peer, recipe
from benchmarks.images import Images
from simclr.augment import blur, crop, flip, grayscale, jitter
from simclr.core import prefetch, processor
from simclr.core.rgb import Pixels
from simclr.data import loader, sampling
from simclr.data.beton import Beton
from simclr.data.loader import Crops
from simclr.device.transfer import Parcel
from simclr.training.recipe import Recipe
from simclr.views.compose import Views
from simclr.views.stream import ViewStream

_ENDLESS = 1 << 30
_TILES = 64
"""Times that one epoch of upstream's loader goes through the images: to begin one costs it a pause."""
_NEVER = {
    "crop": crop.Params(scale=[1.0, 1.0], ratio=[1.0, 1.0]),
    "flip": flip.Params(probability=0.0),
    "jitter": jitter.Params(probability=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
    "grayscale": grayscale.Params(probability=0.0),
    "blur": blur.Params(probability=0.0, sigma=[1.0, 1.0]),
}
"""What a peer is given for an augmentation that is not listed."""

NOTES = """\
- Every loader works on all cores: the DataLoaders with one worker each (and one thread per worker, torch's default),
  FFCV and ours with one thread each.
- 32 px: the peers transform arrays in memory, as torchvision's CIFAR10 holds them; FFCV and ours read raw .beton
  files. 224 px: all read the same JPEG files, FFCV and ours as they are in a .beton.
- torchvision v2 works on uint8 tensors (decoded by torchvision.io) and turns them into floats last, as its
  documentation advises; lightly's blur is Pillow's, a faster approximation than the others'.
- FFCV has no hue, no gray and no blur: it does brightness, contrast and saturation, in this order, and nothing for
  the rest. Its two views are two pipelines of the one field, which decode the image twice.
- "decode + crop + flip" is what a GPU is fed with, on the host: uint8, but for torchvision's Pillow transforms, which
  end with ToTensor as in its documentation.
- Normalisation is left out everywhere."""

Stream = Generator[Any, None, None]
"""Yields once for every finished batch, for ever."""


def views_of(chosen: Recipe) -> Views:
    """The views that are pretrained on."""
    parameters = chosen.parameters
    return Views(chosen.augmentations, parameters.views.count, parameters.views.resolution, parameters.seed)


def parameters_of(views: Views, name: str) -> Any:
    """The `Params` of the augmentation `name` of `views`; where it is not listed, ones that change nothing."""
    return {option.name: option.parameters for option in views.augmentations}.get(name, _NEVER[name])


@dataclass(frozen=True)
class _Task:
    """What a loader has to deliver."""

    views: Views
    beton: Beton
    """What FFCV and ours read."""
    items: Sequence[Path] | Pixels
    """What the others read: files, or images in memory."""
    batch_size: int
    device: torch.device
    colored: bool = True
    """Whether the views are finished, or only cut and flipped and still uint8."""
    small: tuple[Views, ...] = ()
    """More views, of another size; ours alone makes them."""


def rows(
    given: Images,
    folder: Path,
    device: torch.device,
    *,
    batch_sizes: tuple[int, int],
    least: float,
    repeats: int,
    without: str = "",
) -> Iterator[Row]:
    """The rows of the table.

    Args:
        given: the images to load.
        folder: for the .beton files.
        device: where finished views end.
        batch_sizes: samples per batch, at 32 and at 224 px.
        least: seconds that are timed, at least, in each repeat.
        repeats: of each contestant.
        without: a peer that is left out.
    """
    arrays = images.stored_arrays(folder / "arrays.beton", given.small)
    files = images.stored_files(folder / "files.beton", given.files)
    small, large = views_of(recipe("cifar10")), views_of(recipe("imagenet"))
    tasks = {
        "two views, 32 px: crop, flip, jitter, gray": _Task(small, arrays, given.small, batch_sizes[0], device),
        "two views, 224 px: JPEG, crop, flip, jitter, gray, blur": _Task(
            large, files, given.files, batch_sizes[1], device
        ),
        "two views, 224 px: decode + crop + flip": _Task(
            large, files, given.files, batch_sizes[1], device, colored=False
        ),
    }
    targets = [{"torchvision": 8.0}, {"torchvision": 5.0}, {"torchvision": 3.5, "FFCV, two decodes": 1.6}]
    peers = {"torchvision": _pil, "torchvision v2": _v2, "lightly": _lightly, "FFCV, two decodes": _ffcv}
    for (what, task), to_reach in zip(tasks.items(), targets, strict=True):
        rivals = {name: partial(_entrant, open_, task, least) for name, open_ in peers.items() if name != without}
        if not task.colored:  # lightly's transform does everything
            del rivals["lightly"]
        ours = _entrant(_ours, task, least)
        yield from compare(what, "samples/s", ours, rivals, repeats, more_is_better=True, targets=to_reach)
    four = Views(large.augmentations, 4, 96, large.seed, first=2)
    yield from compare(
        "of each image two views of 224 px and four of 96 px", "views/s",
        _per_view(_entrant(_ours, replace(task, colored=True, small=(four,)), least), 6),
        {"two views of 224 px": lambda: _per_view(_entrant(_ours, replace(task, colored=True), least), 2)},
        repeats, more_is_better=True,
    )  # fmt: skip
    bound = interleaved({OURS: _entrant(_decoder, task, least)}, repeats)[OURS]
    yield Row("224 px: the decoder alone, once a sample", "samples/s", bound, more_is_better=True)


def _entrant(ready: Callable[[_Task], Callable[[], Stream]], task: _Task, least: float) -> Run:
    return _rate(ready(task), task, least)


def _per_view(run: Run, views: int) -> Run:
    return lambda: views * run()


def _rate(open_: Callable[[], Stream], task: _Task, least: float) -> Run:
    """A run that opens a stream, warms it up and times it; in rounds of one batch per worker, so that each has its
    share in what is counted."""

    def run() -> float:
        with closing(open_()) as stream:
            for _ in range(max(2, CORES)):
                next(stream)
            count, began = 0, finished(task.device)
            while (now := finished(task.device)) - began < least or not count:
                for _ in range(CORES):
                    next(stream)
                count += CORES * task.batch_size
            return count / (now - began)

    return run


def _ours(task: _Task) -> Callable[[], Stream]:
    count = len(task.beton)
    sizes = (task.views, *task.small)
    source = ViewStream(task.beton, sizes, task.device)

    def load(item: tuple[int, sampling.Indices]) -> Parcel:
        epoch, samples = item
        return source.load(samples, epoch)

    def stream() -> Stream:
        epochs = (
            (
                (epoch, samples)
                for samples in sampling.shuffled_batches(count, task.batch_size, 0, epoch, drop_last=True)
            )
            for epoch in itertools.count()
        )
        # as in a run; more of torch's threads would spin for their next operation, on the cores that cut views
        torch.set_num_threads(processor.threads())
        with closing(prefetch.prefetch(load, itertools.chain.from_iterable(epochs))) as loaded:  # type: ignore[type-var]
            for parcel in loaded:
                if task.colored:
                    batch = parcel.to(task.device)
                    yield [source.augmented(batch, k) for k in range(len(sizes))]
                else:
                    yield parcel["pixels.0"]

    return stream


def _decoder(task: _Task) -> Callable[[], Stream]:
    """What bounds ours where images are JPEGs: all are decoded, and one pixel is cut out."""

    def stream() -> Stream:
        pixel = np.ones((task.batch_size, 1, 4), np.int64)
        for epoch in itertools.count():
            for samples in sampling.shuffled_batches(len(task.beton), task.batch_size, 0, epoch, drop_last=True):
                yield loader.load(task.beton, samples, [Crops(pixel, 1)], torch.device("cpu"))["pixels.0"]

    return stream


class TwoViews(Dataset[tuple[Tensor, ...]]):
    """Two results of a transform for every item; `both` makes them at once, as lightly's transforms do."""

    def __init__(self, items: Any, read: Callable[[Any], Any], both: Callable[[Any], Sequence[Tensor]]) -> None:
        self.items, self.read, self.both = items, read, both

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(self.both(self.read(self.items[index])))


def _torch_loader(dataset: TwoViews, task: _Task) -> Callable[[], Stream]:
    def stream() -> Stream:
        loader = DataLoader(
            dataset,
            task.batch_size,
            sampler=RandomSampler(dataset, replacement=True, num_samples=_ENDLESS),
            **WORKERS,
            pin_memory=task.device.type == "cuda",
        )
        for batch in loader:
            yield [view.to(task.device, non_blocking=True) if task.colored else view for view in batch]

    return stream


def _twice(transform: Callable[[Any], Tensor]) -> Callable[[Any], Sequence[Tensor]]:
    return lambda image: (transform(image), transform(image))


def opened(item: Path | Pixels) -> Image.Image:
    """The file, or the array, as a Pillow image: what torchvision's data sets give."""
    if isinstance(item, np.ndarray):
        return Image.fromarray(item)
    with Image.open(item) as image:
        return image.convert("RGB")


def _composed(kit: Any, task: _Task, into_floats: Sequence[Any]) -> Callable[[Any], Sequence[Tensor]]:
    """Two views by torchvision's transforms, of the `kit` v1 or v2, whose names and arguments are the same."""
    size, chosen = task.views.resolution, partial(parameters_of, task.views)
    cut, color, blurred = chosen("crop"), chosen("jitter"), chosen("blur")
    steps: list[Any] = [
        kit.RandomResizedCrop(size, cut.scale, cut.ratio),
        kit.RandomHorizontalFlip(chosen("flip").probability),
    ]
    if task.colored:
        change = kit.ColorJitter(color.brightness, color.contrast, color.saturation, color.hue)
        steps += [
            kit.RandomApply([change], color.probability),
            kit.RandomGrayscale(chosen("grayscale").probability),
        ]
        if blurred.probability > 0:
            filtering = kit.GaussianBlur(blur.kernel_size(size), blurred.sigma)
            steps.append(kit.RandomApply([filtering], blurred.probability))
    return _twice(kit.Compose([*steps, *into_floats]))


def _pil(task: _Task) -> Callable[[], Stream]:
    both = _composed(transforms, task, [transforms.ToTensor()])
    return _torch_loader(TwoViews(task.items, opened, both), task)


def _decoded(item: Path | Pixels) -> Tensor:
    """(3, H, W) uint8."""
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item).permute(2, 0, 1)
    pixels: Tensor = io.decode_image(str(item), io.ImageReadMode.RGB)
    return pixels


def _v2(task: _Task) -> Callable[[], Stream]:
    both = _composed(v2, task, [v2.ToDtype(torch.float32, scale=True)] if task.colored else [])
    return _torch_loader(TwoViews(task.items, _decoded, both), task)


def lightly_transform(views: Views) -> Callable[[Any], Sequence[Tensor]]:
    """lightly's SimCLR transform with our strengths, without normalisation.

    Raises:
        MissingError: lightly is not installed.
    """
    chosen = partial(parameters_of, views)
    color, blurred = chosen("jitter"), chosen("blur")
    transform: Callable[[Any], Sequence[Tensor]] = peer("lightly.transforms").SimCLRTransform(
        input_size=views.resolution,
        cj_prob=color.probability,
        cj_strength=1.0,
        cj_bright=color.brightness,
        cj_contrast=color.contrast,
        cj_sat=color.saturation,
        cj_hue=color.hue,
        min_scale=chosen("crop").scale[0],
        random_gray_scale=chosen("grayscale").probability,
        gaussian_blur=blurred.probability,
        sigmas=tuple(blurred.sigma),
        hf_prob=chosen("flip").probability,
        normalize=None,
    )
    return transform


def _lightly(task: _Task) -> Callable[[], Stream]:
    return _torch_loader(TwoViews(task.items, opened, lightly_transform(task.views)), task)


def _ffcv(task: _Task) -> Callable[[], Stream]:
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToDevice, ToTensor, ToTorchImage
    from ffcv.transforms.color_jitter import RandomBrightness, RandomContrast, RandomSaturation

    size, chosen = task.views.resolution, partial(parameters_of, task.views)
    cut, color = chosen("crop"), chosen("jitter")

    def view() -> PipelineSpec:
        decoder = RandomResizedCropRGBImageDecoder((size, size), tuple(cut.scale), tuple(cut.ratio))
        steps: list[Any] = [RandomHorizontalFlip(chosen("flip").probability)]
        if task.colored:
            steps += [
                RandomBrightness(color.brightness, color.probability),
                RandomContrast(color.contrast, color.probability),
                RandomSaturation(color.saturation, color.probability),
            ]
        steps.append(ToTensor())
        if task.colored and task.device.type == "cuda":
            steps.append(ToDevice(task.device))
        return PipelineSpec("image", decoder, [*steps, ToTorchImage()])

    ffcv_loader = Loader(
        str(task.beton.path),
        task.batch_size,
        CORES,
        order=OrderOption.RANDOM,
        indices=np.tile(np.arange(len(task.beton)), _TILES),
        pipelines={"image": None, "label": None, "first": view(), "second": view()},
    )

    def stream() -> Stream:
        while True:
            epoch = iter(ffcv_loader)
            try:
                for batch in epoch:
                    yield [pixels.float().div_(255) for pixels in batch] if task.colored else batch
            finally:
                epoch.close()  # its thread notices when it finds no room for another batch
                epoch.join()

    return stream
