"""An epoch of training, whole: loading, views, model, loss and optimiser.

python -m benchmarks --only epoch
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import images
from benchmarks.contest import CORES, WORKERS, Measured, Row, Run, compare, finished, peer, recipe
from benchmarks.images import Images
from benchmarks.loading import lightly_transform, opened, views_of
from simclr import presets
from simclr.conversion import convert
from simclr.conversion.convert import ConvertParams
from simclr.core import params, prefetch
from simclr.core.rgb import Pixels
from simclr.data import converted, loader
from simclr.data.beton import Beton
from simclr.data.converted import DatasetInfo
from simclr.distributed.session import open_session
from simclr.features.eval_transform import EvalTransform
from simclr.images import source_images
from simclr.learning.schedule import scaled_lr
from simclr.sources import FetchParams, digits
from simclr.tracking.tensorboard import Board
from simclr.training import pretrain
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext

EPOCHS = 4
"""That each turn of a contestant takes; the first is not counted."""
_CIFAR = 50_000

NOTES = """\
- The peer is the same model at the same batch size, in lightly's manner: its transform in a DataLoader (one worker per
  core, kept from epoch to epoch), both views in one forward pass, its NTXentLoss and LARS. It gets what ours has and
  lightly does not speak of: channels_last and, on a GPU, bf16. Its rate of learning does not change.
- Ours has SIMCLR_THREADS set to the number of cores, as torch has by itself. "one thread" is what a run of ours has
  without it, so that its bytes do not depend on the number of cores; lightly keeps all of them.
- "held to AVX2" is how a run of ours is by default, so that its bytes do not depend on the processor. All other rows
  are at the processor's own speed (SIMCLR_CPU=native).
- Each repeat is the median of some epochs after a first one. Validation is not in them.
- "waits for data": the share of an epoch in which the loop waits for the next batch to be loaded. The work on the
  device (cutting small images, colors, blur) is not in it."""


def rows(given: Images, folder: Path, device: torch.device, *, repeats: int, preset: str = "digits") -> Iterator[Row]:
    """The rows of the table: the default run and, on a GPU, CIFAR-10's and ImageNet's sizes too."""
    default = _recipe(preset)
    data = _arrays(folder / preset, None)
    yield from _epoch(f"an epoch, {preset}", default, data, _items(data.source), device, repeats)
    if device.type == "cpu":
        native = {"ours, SIMCLR_CPU=native": lambda: lambda: _elsewhere(preset, "native")}
        what = f"an epoch, {preset}: one thread, held to AVX2"
        yield from compare(what, "s", lambda: _elsewhere(preset, "held"), native, repeats)
    if device.type == "cuda":
        cifar = _recipe("cifar10")
        count = round(_CIFAR / 0.9)  # the rest validates
        data = _arrays(folder / "cifar10", images.shrunk(given.files, count))
        what = "an epoch, 50,000 images of 32 px, ResNet-18, batch 512"
        yield from _epoch(what, cifar, data, _items(data.source), device, repeats, 3.0)
        imagenet = _recipe("imagenet", "pretrain.batch_size=256")
        data = _files(folder / "imagenet", given)
        what = f"an epoch, {len(data.source)} JPEGs at 224 px, ResNet-50, batch 256"
        views_per_second = 4000.0
        most = 2 * len(data.source) / views_per_second
        yield from _epoch(what, imagenet, data, given.files, device, repeats, most)


def _recipe(preset: str, *overrides: str) -> Recipe:
    epochs = (f"pretrain.epochs={EPOCHS}", f"pretrain.validation.every_epochs={EPOCHS}")
    return recipe(preset, *epochs, *overrides)


def _arrays(folder: Path, pixels: Pixels | None) -> PretrainData:
    """Small images, converted as a run would: those of `pixels` (N, H, W, 3), or the digits."""
    source = folder / "raw"
    source.mkdir(parents=True)
    if pixels is None:
        given = digits.fetch(
            params.check(presets.compose("digits")["fetch"], FetchParams, "fetch", "digits"), source, source
        )
    else:
        labels = np.arange(len(pixels)) % 10
        splits: dict[str, source_images.Split] = {
            name: source_images.write_arrays(source, name, part, labels[: len(part)])
            for name, part in (("train", pixels), ("test", pixels[:10]))
        }
        given = source_images.Dataset("natural", [str(label) for label in range(10)], splits)
    parameters = params.check(presets.compose("digits")["convert"], ConvertParams, "convert", "digits")
    convert.convert(parameters, given, folder / "beton")
    return PretrainData(
        source=converted.open_split(folder / "beton", "train"),
        train=converted.open_split(folder / "beton", "train"),
        val=converted.open_split(folder / "beton", "val"),
        info=converted.load_info(folder / "beton"),
    )


def _files(folder: Path, given: Images) -> PretrainData:
    """The JPEG files, each as a sample of one class."""
    folder.mkdir(parents=True)
    stored = images.stored_files(folder / "train.beton", given.files)
    half = [0.5] * 3
    return PretrainData(stored, stored, stored, DatasetInfo(["picture"], half, half, {"train": "", "val": ""}))


class _Clock(Board):
    """Takes down the seconds of every epoch, which a run tells as its speed, and how long it waited for data."""

    def __init__(self, samples: int) -> None:
        super().__init__(None)
        self.samples = samples
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self._waited = 0.0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if "speed/samples_per_second" in values:
            self.seconds.append(self.samples / values["speed/samples_per_second"])
            self.waited.append(self._waited)
            self._waited = 0.0

    def prefetch(self, load: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> Iterator[Any]:
        """What `prefetch.prefetch` does, with the waiting timed."""
        loaded = _prefetch(load, items, threads)
        while True:
            began = time.perf_counter()
            item = next(loaded, None)
            self._waited += time.perf_counter() - began
            if item is None:
                return
            yield item


_prefetch = prefetch.prefetch


def _epoch(
    what: str,
    chosen: Recipe,
    data: PretrainData,
    items: Sequence[Path | Pixels],
    device: torch.device,
    repeats: int,
    most: float | None = None,
) -> Iterator[Row]:
    samples = _samples(chosen, data)
    shares: list[float] = []

    def ours(threads: int) -> float:
        clock = _Clock(samples)
        with (
            mock.patch.dict(os.environ, SIMCLR_THREADS=str(threads)),
            mock.patch.object(prefetch, "prefetch", clock.prefetch),
        ):
            _trained(chosen, data, clock)
        shares.append(100 * sum(clock.waited[1:]) / sum(clock.seconds[1:]))
        return statistics.median(clock.seconds[1:])

    peers = {"lightly": lambda: _lightly(chosen, data.info, items, device)}
    found = list(compare(what, "s", lambda: ours(CORES), peers, repeats))
    yield from found
    yield Row(f"{what}: waits for data", "%", Measured(tuple(shares)), target=5.0)
    if device.type == "cpu" and CORES > 1:
        yield from compare(f"{what}: one thread", "s", lambda: ours(1), peers, repeats)
    if most is not None:
        yield Row(what, "s", found[0].ours, target=most)


def _samples(chosen: Recipe, data: PretrainData) -> int:
    """Of an epoch."""
    batch_size = chosen.parameters.batch_size
    return len(data.source) // batch_size * batch_size


def _trained(chosen: Recipe, data: PretrainData, clock: _Clock) -> None:
    deterministic = chosen.parameters.deterministic
    with open_session(deterministic=deterministic, benchmark=not deterministic) as session:
        pretrain.pretrain(chosen, data, session, RunContext(board=clock))


def _elsewhere(preset: str, mode: str) -> float:
    """`alone` in a fresh process whose libraries are held to AVX2, or are not."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.epoch", preset], env=os.environ | {"SIMCLR_CPU": mode},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def alone(preset: str, folder: Path) -> float:
    """The median seconds of an epoch of `preset` on the digits, on one thread, with all that a run has."""
    chosen = _recipe(preset)
    data = _arrays(folder, None)
    clock = _Clock(_samples(chosen, data))
    _trained(chosen, data, clock)
    return statistics.median(clock.seconds[1:])


class _Pictures(Dataset[Any]):
    """lightly's transform of every image, and a label."""

    def __init__(self, items: Sequence[Path | Pixels], transform: Callable[[Any], Any]) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(opened(self.items[index])), 0


def _lightly(chosen: Recipe, description: DatasetInfo, items: Sequence[Path | Pixels], device: torch.device) -> Run:
    """A run that trains on `items` for some epochs, and returns the median seconds of one."""
    parameters, size = chosen.parameters, chosen.parameters.views.resolution
    both = lightly_transform(views_of(chosen))
    criterion = peer("lightly.loss").NTXentLoss(chosen.loss.parameters.temperature)
    torch.manual_seed(parameters.seed)
    encoder = chosen.model.module.build(chosen.model.parameters, size)
    model = chosen.method.module.build(chosen.method.parameters, encoder, len(description.classes), chosen.loss)
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = peer("lightly.utils.lars").LARS(
        [
            {"params": [weight for weight in model.parameters() if weight.ndim > 1]},
            {"params": [weight for weight in model.parameters() if weight.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=scaled_lr(parameters.optimizer.lr, parameters.batch_size, parameters.optimizer.lr_scaling),
        momentum=parameters.optimizer.momentum,
        weight_decay=parameters.optimizer.weight_decay,
    )
    transform = EvalTransform(size, 1.0, description.mean, description.std)
    loader = DataLoader(
        _Pictures(items, both),
        parameters.batch_size,
        shuffle=True,
        drop_last=True,
        **WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    keys = torch.zeros(2 * parameters.batch_size, dtype=torch.int64, device=device)  # of no dropout
    half = torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else nullcontext()

    def train() -> float:
        began = finished(device)
        for views, _ in loader:
            images = transform.normalise(torch.cat([view.to(device, non_blocking=True) for view in views]))
            with half:
                _, z = model((images.contiguous(memory_format=torch.channels_last),), keys)
            loss: Tensor = criterion(*z.float().chunk(2))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return finished(device) - began

    def run() -> float:
        model.train()
        return statistics.median([train() for _ in range(EPOCHS)][1:])

    return run


def _items(source: Beton) -> list[Pixels]:
    """The images of `source`, small and of one size, as torchvision's data sets hold them: arrays."""
    return list(loader.thumbnails(source, np.arange(len(source)), int(source.heights[0])))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(alone(sys.argv[1], Path(name)))
