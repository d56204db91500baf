"""Stage `convert`: a .beton file for each split in data/beton, and pictures and counts in reports/convert."""

import dataclasses
from pathlib import Path

from simclr.conversion.convert import ConvertParams, convert
from simclr.conversion.splits import first_of_each_class
from simclr.core import entry, fingerprint, params, tables
from simclr.data import converted, loader
from simclr.images import source_images
from simclr.report import sheets
from simclr.tracking import provenance

BETON, REPORTS = Path("data/beton"), Path("reports/convert")
ROWS, COLUMNS = 10, 12  # of a context sheet


def main() -> None:
    source = source_images.open_dataset(Path("data/raw"))
    parameters = params.load("convert", ConvertParams)
    report = convert(parameters, source, BETON)
    tables.write_json(REPORTS / "metrics.json", report)
    splits = {name: converted.open_split(BETON, name) for name in report if converted.has_split(BETON, name)}
    tables.write_csv(
        REPORTS / "classes.csv",
        [
            {"class": name, **{split: int((beton.labels == label).sum()) for split, beton in splits.items()}}
            for label, name in enumerate(source.classes)
        ],
    )
    for name, beton in splits.items():
        shown = first_of_each_class(beton.labels, classes=ROWS, count=COLUMNS)
        sheets.contact_sheet(
            REPORTS / "samples" / f"{name}.png",
            list(loader.thumbnails(beton, shown, size=96)),
            beton.labels[shown].tolist(),
            source.classes,
            f"{name}: {len(beton):,} images of {source.source}",
        )
    fingerprints = {
        "code": fingerprint.of_program(Path(__file__)),
        "parameters": fingerprint.of_values(dataclasses.asdict(parameters)),
        "data": fingerprint.of_values(converted.description(BETON).digests),
    }
    provenance.write(REPORTS, [BETON], fingerprints)


if __name__ == "__main__":
    entry.run("convert", main)
