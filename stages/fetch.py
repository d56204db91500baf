"""Stage `fetch`: the raw images of the chosen source, in data/raw."""

from pathlib import Path

from simclr.core import entry, params
from simclr.sources import FetchParams, fetch


def main() -> None:
    dataset = fetch(params.load("fetch", FetchParams), Path("data/raw"))
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    print(f"{dataset.source}: {counts} images in {len(dataset.classes)} classes")


if __name__ == "__main__":
    entry.run("fetch", main)
