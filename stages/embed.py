"""Stage `embed`: the representations of every split in data/features, a map and neighbors of some in
data/embedding.safetensors, kNN accuracy in reports/embed.
"""

from pathlib import Path

from simclr.core import arrays, entry, params, params_file, tables
from simclr.core.errors import raise_all
from simclr.core.interval import limits
from simclr.data import converted, loader
from simclr.distributed import launch
from simclr.distributed.session import open_session
from simclr.embed.embed_params import EmbedParams, refusals
from simclr.embed.embedding_map import tsne
from simclr.embed.neighbors import examples, knn_accuracy
from simclr.features import encode, encoder_file, feature_file
from simclr.tracking import provenance
from simclr.tracking.tensorboard import Board, run_folder

BETON, MODEL = Path("data/beton"), Path("models/encoder.safetensors")
FEATURES, EMBEDDING = Path("data/features"), Path("data/embedding.safetensors")
REPORTS = Path("reports/embed")


def main() -> None:
    parameters = params.load("embed", EmbedParams)
    launch.on_every_gpu()
    info = converted.load_info(BETON)
    classes = info.classes
    splits = {name: converted.open_split(BETON, name) for name in ("train", "val", "test")}
    raise_all(refusals(len(splits["test"])))
    encoder, transform = encoder_file.load(MODEL, params_file.lookup(params_file.read(), "pretrain.model"))
    digests = feature_file.inputs(info, MODEL)
    with open_session() as session:
        share = encode.encode_splits(encoder, splits, transform, parameters.batch_size, session)
        train, test = share["train"], share["test"]
        metrics = knn_accuracy(parameters, train, test, len(classes), session) if info.labelled else {}
        neighbors = examples(parameters, train, test, session)
        features = encode.gather_to_main(share, session)
        if not session.is_main:
            return
    feature_file.save(FEATURES, features, digests)
    test = features["test"]
    interval = limits("knn_top1", metrics["knn_top1"], test.count) if metrics else {}
    tables.write_json(REPORTS / "metrics.json", metrics | interval)

    embedding_map = tsne(parameters, test)
    if embedding_map.perplexity < parameters.map_perplexity:
        asked, used = parameters.map_perplexity, embedding_map.perplexity
        print(f"embed: map_perplexity is {used:.3g} in place of {asked:.3g}, for so few points")
    shown = {"samples": embedding_map.samples, "points": embedding_map.points, **vars(neighbors)}
    arrays.save(EMBEDDING, shown)
    places = embedding_map.samples
    with Board(run_folder("embed")) as board:
        board.scalars({f"test/{name}": value for name, value in metrics.items()}, 0)
        board.embedding(
            test.h[places].numpy(),
            [classes[label] if info.labelled else "" for label in splits["test"].labels[places]],
            lambda points: list(loader.thumbnails(splits["test"], places[points], size=32)),
            "test",
        )
    provenance.write(
        Path(__file__),
        [FEATURES, EMBEDDING],
        digests,
        [encoder_file.option(encoder)],
        session.device,
        {0: session.world_size},
    )
    if not metrics:
        print("embed: these images have no labels, so no accuracy")
        return
    k = f"{metrics['knn_neighbors']:g}"
    if metrics["knn_neighbors"] < parameters.neighbors:
        k += f", the images of train's smallest class, instead of {parameters.neighbors}"
    print(f"embed: knn_top1 {metrics['knn_top1']:.2f} %, knn_top5 {metrics['knn_top5']:.2f} % (k = {k})")


if __name__ == "__main__":
    entry.run("embed", main)
