"""What a few epochs teach, beside a peer: the same encoder, images, batches, optimiser and evaluation, with our views,
head, loss and loop or with lightly's. `make bench-accuracy IMAGES=folder` calls it.

    python -m benchmarks.accuracy --images pictures    # 2,000 of its images: less than 15 minutes on two cores
    python -m benchmarks.accuracy --images pictures --train 5000 --epochs 6 20 60 --seeds 3 models.resnet.width=0.5
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import table
from benchmarks.contest import CORES, WORKERS, MissingError, peer, recipe
from benchmarks.images import LAYOUT, class_folders, first, held_out
from benchmarks.loading import TwoViews, lightly_transform, opened, views_of
from simclr import presets
from simclr.core import entry, params
from simclr.core.errors import UserError
from simclr.core.rgb import Pixels
from simclr.data import beton, loader, sampling
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.data.converted import DatasetInfo
from simclr.distributed.session import Session, open_session
from simclr.embed import neighbors
from simclr.embed.embed_params import EmbedParams
from simclr.features import encode, logistic_regression
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.features.knn import accuracy
from simclr.learning.schedule import scaled_lr, warmup_cosine
from simclr.report import figure
from simclr.report.figure import COLORS
from simclr.tracking import progress
from simclr.training import pretrain
from simclr.training.pretrain_params import in_bf16
from simclr.training.recipe import Recipe
from simclr.training.run_context import PretrainData, RunContext

SETUPS = {
    "cifar10": (
        "encoder=resnet10_quarter", "models.resnet.zero_init_residual=false", "pretrain.batch_size=256",
        "pretrain.optimizer.name=sgd", "pretrain.optimizer.lr=0.12", "pretrain.optimizer.weight_decay=5e-4",
        "pretrain.optimizer.warmup_epochs=0",
    ),
    "cifar10_fast": (
        "encoder=resnet10_quarter", "pretrain.split=train", "pretrain.compile=false", "pretrain.batch_size=128",
        "pretrain.optimizer.lr=0.5",
    ),
}  # fmt: skip
"""What is changed in two presets: an encoder and a recipe for few epochs of some thousand images on a CPU."""
OURS, FAST, LIGHTLY, UNTRAINED = "ours", "ours, cifar10_fast", "lightly's parts", "untrained"
_L2 = 0.01
"""Of the logistic regression; nothing is chosen, so that no image is needed to choose on."""
_ENCODED = 500
"""Images encoded at once."""
_RESULTS = Path(__file__).parent / "results"

NOTES = """\
- The peer is lightly's transform, projection head and NTXentLoss in a loop as its examples have it: a DataLoader, and
  each view in a forward pass of its own, and weight decay on every parameter. Encoder, initial weights, order of the
  images, SGD, learning rate, strength of the decay and number of steps are the same as ours.
- kNN: 20 neighbors, temperature 0.1. linear: logistic regression on standardised features, L2 0.01. Both are trained on
  the images of the pretraining and scored on others, once, after the last epoch. Each number of epochs is a run of
  its own, with its own cosine.
- cifar10_fast is our own recipe: an epoch of it has six views of every image, four of them small, instead of two.
- s: of the training alone, without evaluation. Level at equal time is who needs no more seconds, whatever the epochs.
- Mean ± standard deviation over the seeds; of the difference, over its values for each seed."""


@dataclass(frozen=True)
class Score:
    """Top-1 accuracy in percent on the test images, and the seconds of the training."""

    knn: float
    linear: float
    seconds: float


@dataclass(frozen=True)
class Level:
    """What a contestant reached after so many epochs: a score for each seed, or why there is none."""

    contestant: str
    epochs: int
    scores: tuple[Score, ...]
    skipped: str = ""


@dataclass(frozen=True)
class Given:
    """Small images to train and to test on, all of one size."""

    train: Beton
    test: Beton
    description: DatasetInfo


def small_images(images: Path, count: int, tested: int, size: int, folder: Path) -> Given:
    """The first images of every class under `images`, `count` to train and `tested` to test on, kept in `folder`.

    Of each the central square, shrunk to `size` pixels.

    Raises:
        UserError: a folder or a class is missing, or a class has too few images.
    """
    train, classes = _split(images / "train", count, size)
    test, tested_classes = _split(held_out(images), tested, size)
    if classes != tested_classes:
        raise UserError(f"{images}: train has the classes {', '.join(classes)}, test {', '.join(tested_classes)}")
    channels = train.reshape(-1, 3) / 255
    description = DatasetInfo(classes, channels.mean(axis=0).tolist(), channels.std(axis=0).tolist(), {})
    return Given(
        _stored(folder / "train.beton", train, len(classes)), _stored(folder / "test.beton", test, len(classes)),
        description,
    )  # fmt: skip


def _split(folder: Path, count: int, size: int) -> tuple[Pixels, list[str]]:
    """(N, size, size, 3) uint8, as many of each class, class by class, and the classes."""
    classes = [path.name for path in class_folders(folder)]
    each = max(1, count // len(classes))
    found = []
    for name in classes:
        found += [_square(path, size) for path in first(folder / name, each)]
    return np.stack(found), classes


def _square(path: Path, size: int) -> npt.NDArray[np.uint8]:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = ((whole - side) // 2 for whole in image.size)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)))


def _stored(path: Path, images: Pixels, classes: int) -> Beton:
    labels = np.repeat(np.arange(classes), len(images) // classes)
    height, width = images.shape[1:3]
    stored = (StoredImage(RAW, height, width, image.tobytes()) for image in images)
    beton.write(path, stored, labels, largest=height * width * 3)
    return beton.read(path)


@dataclass(frozen=True)
class Contestant:
    """Trains an encoder on the images to train on, by a recipe of its own."""

    name: str
    recipe: Recipe
    train: Callable[[Given, Recipe, Session], Encoder]


def contestants(overrides: Sequence[str]) -> list[Contestant]:
    """Who takes part, all with the same changes on top of their setups."""
    same, fast = (recipe(name, *setup, *overrides) for name, setup in SETUPS.items())
    return [Contestant(OURS, same, _ours), Contestant(FAST, fast, _ours), Contestant(LIGHTLY, same, _lightly)]


def levels(
    given: Given, entrants: Sequence[Contestant], epochs: Sequence[int], seeds: int, session: Session
) -> Iterator[Level]:
    """The figures of the table: of the untrained encoder, then of all `entrants` after so many `epochs`."""
    with progress.bar(seeds * len(entrants) * sum(epochs), "epoch", "bench-accuracy") as bar:

        def level(entrant: Contestant, number: int) -> Level:
            scores = []
            try:
                for seed in range(seeds):
                    chosen = _changed(entrant.recipe, seed=seed, epochs=max(1, number))
                    began = time.perf_counter()
                    trained = entrant.train(given, chosen, session)
                    scores.append(_score(trained, given, chosen, session, time.perf_counter() - began))
                    bar.update(number)
            except MissingError as reason:
                return Level(entrant.name, number, (), str(reason))
            return Level(entrant.name, number, tuple(scores))

        yield level(Contestant(UNTRAINED, entrants[0].recipe, _untrained), 0)
        for number in epochs:
            for entrant in entrants:
                yield level(entrant, number)


def _changed(chosen: Recipe, **changes: Any) -> Recipe:
    """`chosen` with other values in the section `pretrain`."""
    return dataclasses.replace(chosen, parameters=dataclasses.replace(chosen.parameters, **changes))


def _untrained(given: Given, chosen: Recipe, session: Session) -> Encoder:
    """What all contestants begin with."""
    torch.manual_seed(chosen.parameters.seed)
    network: Encoder = chosen.model.module.build(chosen.model.parameters, chosen.parameters.views.resolution)
    return network.to(session.device)


def _ours(given: Given, chosen: Recipe, session: Session) -> Encoder:
    parameters = chosen.parameters
    once = dataclasses.replace(parameters.validation, every_epochs=parameters.epochs, neighbors=1)  # it chooses nothing
    data = PretrainData(given.train, given.train, given.train, given.description)
    return pretrain.pretrain(_changed(chosen, validation=once), data, session, RunContext()).encoder


def _lightly(given: Given, chosen: Recipe, session: Session) -> Encoder:
    parameters, rule, layers = chosen.parameters, chosen.parameters.optimizer, chosen.method.parameters.head
    both = lightly_transform(views_of(chosen))
    criterion = peer("lightly.loss").NTXentLoss(chosen.loss.parameters.temperature)
    network = _untrained(given, chosen, session)
    network.to(memory_format=torch.channels_last)
    head = peer("lightly.models.modules").SimCLRProjectionHead(
        network.dimension, layers.hidden, layers.output, layers.layers, layers.batch_norm
    )
    head = head.to(session.device)
    peak = scaled_lr(rule.lr, parameters.batch_size, rule.lr_scaling)
    solver = torch.optim.SGD(
        [*network.parameters(), *head.parameters()], peak, rule.momentum, weight_decay=rule.weight_decay
    )
    count = len(given.train)
    order = [
        batch.tolist()
        for epoch in range(1, parameters.epochs + 1)
        for batch in sampling.shuffled_batches(count, parameters.batch_size, parameters.seed, epoch, drop_last=True)
    ]
    warmup = round(rule.warmup_epochs * len(order) / parameters.epochs)
    pictures = TwoViews(loader.thumbnails(given.train, np.arange(count), parameters.views.resolution), opened, both)
    transform = _transform(given, chosen)
    half = torch.autocast(session.device.type, torch.bfloat16, enabled=in_bf16(parameters, session.device))
    with progress.bar(len(order), "step", "lightly") as bar:
        for step, views in enumerate(DataLoader(pictures, batch_sampler=order, **WORKERS)):
            for group in solver.param_groups:
                group["lr"] = peak * warmup_cosine(step, len(order), warmup)
            images = [transform.normalise(view.to(session.device)) for view in views]
            with half:
                z = [head(network(view.contiguous(memory_format=torch.channels_last))) for view in images]
            loss: Tensor = criterion(*(projections.float() for projections in z))
            solver.zero_grad()
            loss.backward()
            solver.step()
            bar.update()
    return network


def _transform(given: Given, chosen: Recipe) -> EvalTransform:
    return EvalTransform(chosen.parameters.views.resolution, 1.0, given.description.mean, given.description.std)


def _score(trained: Encoder, given: Given, chosen: Recipe, session: Session, seconds: float) -> Score:
    transform, classes = _transform(given, chosen), len(given.description.classes)
    splits = {"train": given.train, "test": given.test}
    found = encode.encode_splits(trained, splits, transform, _ENCODED, session)
    train, test = found["train"], found["test"]
    voting = params.check(presets.compose("cifar10")["embed"], EmbedParams, "embed", "cifar10")
    fitted = logistic_regression.fit(train, classes, _L2, iterations=200, session=session)
    return Score(
        knn=neighbors.knn_accuracy(voting, train, test, classes, session)["knn_top1"],
        linear=100 * accuracy(fitted(test.h), test.labels),
        seconds=seconds,
    )


def page(found: Sequence[Level], heading: str, task: str) -> str:
    """The whole result as Markdown."""
    lines = ["| epochs | | kNN | linear | s |", "|--:|---|--:|--:|--:|", *map(_line, found)]
    by_epochs = {(level.contestant, level.epochs): level for level in found}
    for (name, epochs), ours in by_epochs.items():
        theirs = by_epochs.get((LIGHTLY, epochs))
        if name in (OURS, FAST) and theirs and theirs.scores:
            pairs = list(zip(ours.scores, theirs.scores, strict=True))
            gains = Level(
                f"{name} - {LIGHTLY}",
                epochs,
                tuple(
                    Score(mine.knn - other.knn, mine.linear - other.linear, mine.seconds - other.seconds)
                    for mine, other in pairs
                ),
            )
            lines.append(_line(gains, signed=True))
    return "\n\n".join([heading, task, "\n".join(lines), NOTES]) + "\n"


def _line(level: Level, *, signed: bool = False) -> str:
    figures = (("knn", 1), ("linear", 1), ("seconds", 0))
    cells = [table.spread(_values(level, figure), signed, digits) for figure, digits in figures if level.scores]
    name = level.contestant + (f": {level.skipped}" if level.skipped else "")
    return f"| {level.epochs} | {name} | {' | '.join(cells or ['-'] * len(figures))} |"


def _values(level: Level, figure: str) -> list[float]:
    return [getattr(score, figure) for score in level.scores]


def draw(path: Path, found: Sequence[Level]) -> None:
    """Both accuracies over the epochs and over the time of training, a curve for each contestant, as the PNG `path`."""
    with figure.open_figure(path, 720, 560) as canvas:
        grid = canvas.subplots(2, 2)
        for columns, (name, title) in zip(grid.T, {"knn": "kNN, %", "linear": "linear, %"}.items(), strict=True):
            for contestant, color in zip((OURS, FAST, LIGHTLY), COLORS, strict=False):
                shown = [level for level in found if level.contestant in (contestant, UNTRAINED) and level.scores]
                values = [_values(level, name) for level in shown]
                seconds = [statistics.mean(_values(level, "seconds")) for level in shown]
                for axes, places in zip(columns, ([level.epochs for level in shown], seconds), strict=True):
                    axes.errorbar(
                        places, [statistics.mean(each) for each in values],
                        [statistics.stdev(each) if len(each) > 1 else 0 for each in values],
                        color=color, marker="o", markersize=3, capsize=2, linewidth=1, label=contestant,
                    )  # fmt: skip
            for axes, unit in zip(columns, ("epochs", "seconds of training"), strict=True):
                axes.set_title(title)
                axes.set_xlabel(unit)
                axes.grid()
        grid[0, 1].legend()


def main() -> None:
    arguments = _arguments()
    if arguments.images is None:
        raise UserError(f"--images is missing (for make: IMAGES=folder); it takes {LAYOUT}")
    load, began = os.getloadavg()[0], time.perf_counter()
    entrants = contestants(arguments.overrides)
    with tempfile.TemporaryDirectory() as folder, open_session() as session:
        torch.set_num_threads(CORES)
        size = entrants[0].recipe.parameters.views.resolution
        images = small_images(arguments.images, arguments.train, arguments.test, size, Path(folder))
        found = []
        for level in levels(images, entrants, arguments.epochs, arguments.seeds, session):
            found.append(level)
            print(_line(level), file=sys.stderr, flush=True)
    device = session.device
    options = f"--train {arguments.train} --test {arguments.test} --epochs {' '.join(map(str, arguments.epochs))}"
    command = f"python -m benchmarks.accuracy --images FOLDER {options} --seeds {arguments.seeds}"
    setups = (f"{name} with {' '.join([*setup, *arguments.overrides])}" for name, setup in SETUPS.items())
    task = (
        f"{len(images.train):,} images to train on, {len(images.test):,} others to test on, "
        f"{len(images.description.classes)} classes; {arguments.seeds} seeds.\nThe presets {'; '.join(setups)}."
        f"\n\n    {' '.join([command, *arguments.overrides])}"
    )
    text = page(found, table.machine(device, load, time.perf_counter() - began), task)
    print(text)
    if arguments.write:
        _RESULTS.mkdir(exist_ok=True)
        slug = table.slug(table.name(device))
        (_RESULTS / f"accuracy-{slug}.md").write_text(text, encoding="utf-8")
        draw(_RESULTS / f"accuracy-{slug}.png", found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="with train/<class>/* and test/<class>/* (or val/)"
    )
    parser.add_argument(
        "--train", type=int, default=2000, metavar="N", help="images to train on, of all classes together"
    )
    parser.add_argument("--test", type=int, default=2000, metavar="N", help="images to test on")
    parser.add_argument("--epochs", type=int, nargs="+", default=[20], metavar="N", help="a run for each")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/accuracy-<machine>.md and .png")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="parameters, in Hydra's grammar")
    return parser.parse_args()


if __name__ == "__main__":
    entry.run("bench-accuracy", main)
