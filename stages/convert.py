"""Stage `convert`: a .beton file for each split in data/beton, and counts in reports/convert."""

from pathlib import Path

from simclr.conversion.convert import ConvertParams, convert
from simclr.core import entry, fingerprint, params, tables
from simclr.data import converted
from simclr.images import source_images
from simclr.images.source_images import UNLABELLED
from simclr.tracking import provenance

BETON, REPORTS = Path("data/beton"), Path("reports/convert")


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
            for label, name in (enumerate(source.classes) if source.classes else [(UNLABELLED, "without a label")])
        ],
    )
    provenance.write(Path(__file__), [BETON], {"data": fingerprint.of_values(converted.load_info(BETON).digests)})


if __name__ == "__main__":
    entry.run("convert", main)
