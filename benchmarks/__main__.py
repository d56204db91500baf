"""The command `python -m benchmarks`; `make bench` calls it, with the peers installed.

It prints one table of ratios to real alternatives. On two cores it takes less than ten minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import augmentations, conversion, epoch, images, loading, loss, optimizer, table
from benchmarks.contest import CORES, Row
from benchmarks.images import Images
from simclr.core import entry
from simclr.distributed.session import open_session

_RESULTS = Path(__file__).parent / "results"
_SMALL = 4096
"""Images of 32 px."""
_SECTIONS = ("loading", "augmentations", "loss", "optimizer", "epoch", "conversion")


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    load, began = os.getloadavg()[0], time.perf_counter()
    sys.unraisablehook = _told
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, open_session():  # which sets this process up as a run does
        folder = Path(name)
        count = 3000 if on_gpu else 400
        files = images.found(arguments.images, count) if arguments.images else images.cut(_made(folder / "jpeg"), count)
        given = Images(files, images.shrunk(files, _SMALL))
        sections: dict[str, Callable[[], Iterator[Row]]] = {
            "loading": lambda: loading.rows(
                given, folder, device, batch_sizes=(512, 256) if on_gpu else (256, 64), least=1.5, repeats=3
            ),
            "augmentations": lambda: augmentations.rows(
                device, count=512 if on_gpu else 64, size=224, least=0.3, repeats=3
            ),
            "loss": lambda: loss.rows(
                device, samples=8192, most=65536 if on_gpu else 16384, dimension=128, least=0.5, repeats=3
            ),
            "optimizer": lambda: optimizer.rows(device, depth=50, width=1.0, least=0.5, repeats=5),
            "epoch": lambda: epoch.rows(given, _made(folder / "epoch"), device, repeats=5),
            "conversion": lambda: conversion.rows(files, folder, repeats=3),
        }
        notes = {
            module.__name__.rpartition(".")[2]: module.NOTES
            for module in (loading, augmentations, loss, optimizer, epoch, conversion)
        }
        chosen = [section for section in _SECTIONS if section in (arguments.only or _SECTIONS)]
        for section in chosen:
            for row in sections[section]():
                rows.append(row)
                print(table.line(row), file=sys.stderr, flush=True)
    page = table.page(rows, [notes[section] for section in chosen], device, load, time.perf_counter() - began)
    print(page)
    if arguments.write:
        _RESULTS.mkdir(exist_ok=True)
        slug = table.slug(table.name(device))
        (_RESULTS / f"{slug}.md").write_text(page, encoding="utf-8")


def _told(caught: "sys.UnraisableHookArgs") -> None:
    """What happened where nobody could catch it, but for what numba stumbles over when FFCV's pipelines are freed."""
    if not isinstance(caught.exc_value, KeyError) or "finalize" not in repr(caught.object):
        sys.__unraisablehook__(caught)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where views end and models train")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="JPEG files to load, instead of cut photographs")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", nargs="+", choices=_SECTIONS, metavar="SECTION", help=", ".join(_SECTIONS))
    what.add_argument("--write", action="store_true", help="write the table to benchmarks/results/<machine>.md")
    return parser.parse_args()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    entry.run("bench", main)
    if CORES == 1:  # after FFCV's Loader numba would wait for threads of TBB that have no core: see data.upstream
        os._exit(0)
