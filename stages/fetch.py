"""Stage `fetch`: the raw images of the chosen source, in data/raw."""

import sys
from pathlib import Path

from simclr import failure, params
from simclr.fetch import FetchParams, fetch


def main() -> None:
    dataset = fetch(params.load("fetch", FetchParams), Path("data/raw"), say)
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(f"{dataset.source}: {counts} images in {len(dataset.classes)} classes")


def say(line: str) -> None:
    print(f"fetch: {line}", file=sys.stderr)


if __name__ == "__main__":
    failure.run("fetch", main)
