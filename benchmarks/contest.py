"""Measuring ourselves against others on a machine whose speed varies: all take turns, and the median counts."""

import importlib
import os
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from simclr import presets
from simclr.training import recipe as recipes
from simclr.training.recipe import Recipe

CORES = len(os.sched_getaffinity(0))
WORKERS: dict[str, Any] = {"num_workers": CORES, "multiprocessing_context": "fork"}
"""Of a DataLoader. What its workers get need not be picklable then, as with the default before Python 3.14."""
OURS = ""
"""The name of this project among the contestants."""

Run = Callable[[], float]
"""Does the work once, or often enough, and returns the figure: seconds, samples per second, bytes, ..."""


class MissingError(Exception):
    """A peer that cannot take part; says why."""


def peer(module: str) -> Any:
    """The `module` of another project.

    Raises:
        MissingError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # others' deprecations are not ours
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(f"{module.partition('.')[0]} cannot be imported ({error})") from error


@dataclass(frozen=True)
class Measured:
    """The figures of all repeats."""

    figures: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.figures)


@dataclass(frozen=True)
class Row:
    """A line of the table: us beside one peer, or beside nobody where there is no alternative to measure."""

    what: str
    unit: str
    ours: Measured
    peer: str = ""
    theirs: Measured | None = None
    more_is_better: bool = False
    target: float | None = None
    """The ratio to reach; without a peer, the figure."""
    skipped: str = ""
    """Why there is no figure of the peer."""

    @property
    def ratio(self) -> float | None:
        """How many times better we are: above 1 is faster, or smaller."""
        if self.theirs is None:
            return None
        ratio = self.ours.median / self.theirs.median
        return ratio if self.more_is_better else 1 / ratio

    @property
    def reached(self) -> bool | None:
        """Whether the target was, where there is one."""
        if self.target is None or (self.peer and self.ratio is None):
            return None
        if self.ratio is not None:
            return self.ratio >= self.target
        return self.ours.median >= self.target if self.more_is_better else self.ours.median <= self.target


def interleaved(contestants: Mapping[str, Run], repeats: int) -> dict[str, Measured]:
    """The figures of all `contestants`, who take turns `repeats` times, there and back; torch has all cores."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        for name in list(contestants)[:: -1 if repeat % 2 else 1]:
            torch.set_num_threads(CORES)  # importing ffcv sets one
            found[name].append(contestants[name]())
    return {name: Measured(tuple(figures)) for name, figures in found.items()}


def compare(
    what: str,
    unit: str,
    ours: Run,
    peers: Mapping[str, Callable[[], Run]],
    repeats: int,
    *,
    more_is_better: bool = False,
    targets: Mapping[str, float] | None = None,
) -> Iterator[Row]:
    """One row for each of the `peers`, who are made ready when called and may raise MissingError then."""
    contestants, missing = {OURS: ours}, {}
    for name, ready in peers.items():
        try:
            contestants[name] = ready()
        except MissingError as reason:
            missing[name] = str(reason)
    found = interleaved(contestants, repeats)
    for name in peers:
        yield Row(
            what, unit, found[OURS], name, found.get(name), more_is_better, (targets or {}).get(name),
            missing.get(name, ""),
        )  # fmt: skip


def exit_on_signals() -> None:
    """End on SIGTERM and SIGHUP as by sys.exit, so that contexts remove what they made and end what they started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def finished(device: torch.device) -> float:
    """The time in seconds, when `device` has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def milliseconds(call: Callable[[], object], device: torch.device, least: float) -> Run:
    """A run that times `call` over and over for at least so many seconds."""

    def run() -> float:
        call()
        count, began = 0, finished(device)
        while (now := finished(device)) - began < least or not count:
            call()
            count += 1
        return 1000 * (now - began) / count

    return run


def recipe(preset: str, *overrides: str) -> Recipe:
    """What the experiment `preset` pretrains by, with `overrides` in Hydra's grammar."""
    return recipes.checked(presets.compose(preset, overrides), " ".join([preset, *overrides]))
