"""Stage `draw`: all pictures, in reports/draw, from the results of the other stages."""

from pathlib import Path

from simclr.core import arrays, entry, fingerprint, stage_metrics, tables
from simclr.core.atomic import replacing
from simclr.core.errors import UserError
from simclr.core.interval import wilson
from simclr.data import converted, loader
from simclr.data.beton import Beton
from simclr.linear_eval.confusion import confusion
from simclr.report import charts, map_picture, sheets
from simclr.thumbnails.view_grid import view_grid
from simclr.tracking import provenance
from simclr.tracking.tensorboard import Board, run_folder

BETON, VIEWS = Path("data/beton"), Path("data/views.safetensors")
EMBEDDING, SCORES = Path("data/embedding.safetensors"), Path("data/scores.safetensors")
TABLES = Path("reports/evaluate/tables")
REPORTS = Path("reports/draw")
ROWS, COLUMNS = 10, 12  # of a contact sheet
TITLES = {
    "health": "Variance of the representations of test in their first principal components, %",
    "invariance": "Cosine similarity of an image and a view of it, by augmentation",
    "knn": "Top-1 accuracy on test by the number of nearest neighbors, % (95 % interval)",
    "robustness": "Top-1 accuracy on test by the strength of an augmentation (1: that of params.yaml), %",
    "verification": "Are two test images of one class? True positives by false positives, %",
}
REFERENCE = "other_image"  # of invariance
LOGARITHMIC = ("knn",)
PROBES = {
    "pretrained": "pretrained encoder",
    "augmented": "pretrained encoder, augmented images",
    "untrained": "untrained encoder",
    "raw_pixels": "raw pixels",
}


def main() -> None:
    info = converted.load_info(BETON)
    names = ["train", "val", "test", *(["unlabelled"] if converted.has_split(BETON, "unlabelled") else [])]
    splits = {name: converted.open_split(BETON, name) for name in names}
    views = arrays.load(VIEWS, ["full", "small"], "pretrain")
    embedding = arrays.load(EMBEDDING, ["samples", "points", "queries", "nearest"], "embed")
    scores = arrays.load(SCORES, [*(PROBES if info.labelled else []), "labels"], "linear_eval")

    for name, split in splits.items():
        draw_samples(name, split, info.classes)
    grid = view_grid([views["full"], views["small"]])
    sheets.picture(REPORTS / "views.png", grid, "The views of some images, as in the first epoch")
    draw_embedding(embedding, splits["train"], splits["test"], info.classes)
    if info.labelled:
        draw_probes(scores, info.classes)
    else:
        for name in ("confusion", "probes"):  # DVC asks for all plots
            charts.notice(REPORTS / f"{name}.png", "These images have no labels: there is no linear probe.")
    draw_evaluations()
    inputs = {path.stem: fingerprint.of_file(path) for path in (VIEWS, EMBEDDING, SCORES)}
    provenance.write(Path(__file__), [], {"data": fingerprint.of_values(info.digests), **inputs})
    print(f"draw: {len(list(REPORTS.rglob('*.png')))} pictures in {REPORTS}")


def draw_samples(name: str, split: Beton, classes: list[str]) -> None:
    shown = sheets.first_of_each_class(split.labels, classes=ROWS, count=COLUMNS)
    sheets.contact_sheet(
        REPORTS / "samples" / f"{name}.png",
        list(loader.thumbnails(split, shown, size=96)),
        split.labels[shown].tolist(),
        classes,
        f"{name}: {len(split):,} images",
    )


def draw_embedding(embedding: arrays.Arrays, train: Beton, test: Beton, classes: list[str]) -> None:
    for name, split in {"samples": test, "queries": test, "nearest": train}.items():
        if not all(0 <= index < len(split) for index in embedding[name].ravel().tolist()):
            raise UserError(f"{EMBEDDING}: damaged, or of other images; the embed stage writes it")
    map_picture.embedding_map(
        REPORTS / "map.png",
        embedding["points"],
        test.labels[embedding["samples"]],
        classes,
        "Test images, by t-SNE of their representations",
    )
    queries, nearest = embedding["queries"], embedding["nearest"]
    sheets.neighbor_sheet(
        REPORTS / "neighbors.png",
        list(loader.thumbnails(test, queries, size=96)),
        test.labels[queries].tolist(),
        classes,
        [list(loader.thumbnails(train, row, size=96)) for row in nearest],
        train.labels[nearest] == test.labels[queries][:, None] if classes else None,
        "Test images and their nearest training images",
    )


def draw_probes(scores: arrays.Arrays, classes: list[str]) -> None:
    counts = {name: confusion(scores[name], scores["labels"]) for name in PROBES}
    charts.confusion_matrix(REPORTS / "confusion.png", counts["pretrained"], classes, "Linear probe on test: confusion")
    with Board(run_folder("draw")) as board:
        board.picture("linear_eval/confusion", REPORTS / "confusion.png")
    right, images = [int(matrix.trace()) for matrix in counts.values()], len(scores["labels"])
    bounds = [wilson(count, images) for count in right]
    columns: dict[str, list[float] | list[str]] = {
        "probe": list(PROBES.values()),
        "accuracy": [100 * count / images for count in right],
        "accuracy_low": [100 * low for low, _ in bounds],
        "accuracy_high": [100 * high for _, high in bounds],
    }
    charts.table_chart(REPORTS / "probes.png", columns, "Linear probe on test: top-1, % (95 % interval)")


def draw_evaluations() -> None:
    if not TABLES.is_dir():
        raise UserError(f"{TABLES}: no such folder; the evaluate stage writes it")
    with replacing(REPORTS / "evaluations") as folder:
        folder.mkdir()
        for path in sorted(TABLES.glob("*.csv")):
            title = TITLES.get(path.stem, path.stem)
            charts.table_chart(
                folder / f"{path.stem}.png", tables.read_table(path, "evaluate"), title,
                reference=REFERENCE, logarithmic=path.stem in LOGARITHMIC,
            )  # fmt: skip
        if finetuned := finetune_columns():
            title = "Top-1 accuracy on test by the labels that were trained on, % (95 % interval)"
            charts.table_chart(folder / "finetune.png", finetuned, title)
        if not any(folder.iterdir()):
            (folder / ".gitkeep").touch()  # Git keeps no empty folder, and DVC wants one


def finetune_columns() -> dict[str, list[float] | list[str]]:
    """The accuracies of the finetune stage by the share of the labels; empty if it had nothing to do."""
    metrics = stage_metrics.read(Path("reports"), "finetune")
    shares = {key: metrics.part(key) for key in metrics.keys}
    networks = {"fine-tuned": "finetuned", "from scratch": "from_scratch"}
    columns = {
        f"{name}{end}": [share.part(key).percent(f"top1{end}") for share in shares.values()]
        for name, key in networks.items()
        for end in ("", "_low", "_high")
    }
    names = [f"{key.replace('_percent', ' %')} ({share.number('labels')})" for key, share in shares.items()]
    return {"labels": names, **columns} if shares else {}


if __name__ == "__main__":
    entry.run("draw", main)
