"""The rows of a sweep as experiments of DVC, each with several seeds: one table, and one picture.

    python -m benchmarks.compare losses                                # benchmarks/sweeps/losses.yaml, with params.yaml
    python -m benchmarks.compare losses --seeds 5 -S pretrain.epochs=20
    python -m benchmarks.compare losses --preset cifar10_smoke --images pictures --per-class 500 -S pretrain.epochs=10

What has been recorded is not computed again: the same command goes on after an interruption, and with rows added.
"""

import argparse
import dataclasses
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import table
from benchmarks.compare import experiment, page, picture, subset, sweep
from benchmarks.compare.row import Row, measured
from benchmarks.compare.sweep import Sweep
from benchmarks.images import LAYOUT, class_folders
from simclr.core import atomic, entry
from simclr.core.errors import UserError
from simclr.core.printable import join_names

_RESULTS = Path(__file__).parents[1] / "results"
_LINKS = Path("data/compare")
_MOST_SEEDS = 1000
_LEFT_OUT = ("finetune.fractions=[]", "evaluate.evaluations=[]")
"""What takes long and is not compared, unless the sweep or -S say otherwise."""


def main() -> None:
    arguments = _arguments()
    _refuse_unknown_code()
    compared, data = _sweep(arguments)
    experiments = experiment.plan(compared, arguments.seeds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target = f"compare-{table.slug(compared.name)}-{table.slug(data)}"
    heading = (
        f"# {compared.name}, {data}\n\n    {_command(arguments)}\n\n{table.hardware(device)} ({device.type}). "
        f"{table.revision()}.\n\n{table.versions(device)}\n\n![]({target}.png)"
    )

    def write(rows: Sequence[Row]) -> None:
        picture.draw(_RESULTS / f"{target}.png", rows)
        atomic.write_bytes(_RESULTS / f"{target}.md", page.page(rows, compared, heading).encode())

    rows = measured(experiments, experiment.outcome, write)
    print(page.page(rows, compared, heading))
    print(f"compare: {_RESULTS / target}.md and .png", file=sys.stderr)
    if failed := [row.name for row in rows if row.failure]:
        raise UserError(f"failed: {', '.join(failed)}; the table says why")


def _sweep(arguments: argparse.Namespace) -> tuple[Sweep, str]:
    """The sweep with all that the command line sets for its rows, and the name of the data."""
    compared = sweep.read(arguments.sweep)
    preset = sweep.of_preset(arguments.preset) if arguments.preset else ()
    common = (*preset, *_LEFT_OUT, *_images(arguments), *compared.common, *sweep.overrides(arguments.set, "-S"))
    origin = " ".join([compared.name, *(f"-S {override}" for override in arguments.set)])
    fetch = sweep.values(common, origin)["fetch"]
    if fetch["source"] != "folder":
        return dataclasses.replace(compared, common=common), fetch["source"]
    folder = Path(fetch["folder"]).resolve()  # a copy of the repository has no other way to it
    common = (*common, sweep.override("fetch.folder", str(folder)))
    return dataclasses.replace(compared, common=common), folder.name


def _images(arguments: argparse.Namespace) -> tuple[str, ...]:
    folder: Path | None = arguments.images
    if folder is None:
        return ()
    class_folders(folder / "train")
    if arguments.per_class:
        links = _LINKS / f"{folder.resolve().name}-{arguments.per_class}"
        subset.linked(folder, arguments.per_class, links)
        folder = links
    return "fetch.source=folder", sweep.override("fetch.folder", str(folder))


def _refuse_unknown_code() -> None:
    """An experiment has what Git tracks, changes included, and nothing else."""
    command = ["git", "ls-files", "--others", "--exclude-standard", "src", "stages", "scripts"]
    files = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    if files:
        raise UserError(f"Git does not know {join_names(files)}, so that no experiment would have it: git add it first")


def _command(arguments: argparse.Namespace) -> str:
    words = ["python", "-m", "benchmarks.compare", arguments.sweep, "--seeds", str(arguments.seeds)]
    if arguments.preset:
        words += ["--preset", arguments.preset]
    if arguments.images:
        words += ["--images", arguments.images.name]
    if arguments.per_class:
        words += ["--per-class", str(arguments.per_class)]
    return shlex.join([*words, *(word for override in arguments.set for word in ("-S", override))])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", help="a file of benchmarks/sweeps without .yaml, or any YAML file of that form")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each row: 3")
    parser.add_argument("--preset", metavar="NAME", help="instead of what params.yaml says: see simclr presets")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=f"{LAYOUT}, instead of the source")
    parser.add_argument("--per-class", type=int, metavar="N", help="so many of the folder's training images, at most")
    parser.add_argument(
        "-S", "--set-param", action="append", default=[], dest="set", metavar="key=value",
        help="a parameter of all rows, as for dvc exp run",
    )  # fmt: skip
    arguments = parser.parse_args()
    if not 1 <= arguments.seeds <= _MOST_SEEDS:
        parser.error(f"--seeds takes a number from 1 to {_MOST_SEEDS}")
    if arguments.per_class is not None and (arguments.images is None or arguments.per_class < 1):
        parser.error("--per-class takes a number from 1 on, with --images")
    return arguments


if __name__ == "__main__":
    entry.run("compare", main)
