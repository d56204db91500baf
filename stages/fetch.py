"""Stage `fetch`: the images of `fetch.source`, in data/raw."""

from pathlib import Path

from simclr.core import entry, params
from simclr.sources import FetchParams, fetch
from simclr.tracking import provenance

RAW = Path("data/raw")


def main() -> None:
    parameters = params.load("fetch", FetchParams)
    dataset = fetch(parameters, RAW)
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    kinds = f"in {len(dataset.classes)} classes" if dataset.classes else "without labels"
    print(f"{dataset.source}: {counts} images {kinds}")
    provenance.write(Path(__file__), [RAW], {}, [f"sources.{parameters.source}"])


if __name__ == "__main__":
    entry.run("fetch", main)
