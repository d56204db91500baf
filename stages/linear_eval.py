"""Stage `linear_eval`: linear probes of the encoder, of an untrained one and of raw pixels, in reports/linear_eval."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from simclr.core import entry, params, params_file, tables
from simclr.core.interval import limits
from simclr.data import converted
from simclr.distributed import launch
from simclr.distributed.session import open_session
from simclr.features import encode, encoder_file, feature_file
from simclr.linear_eval import linear_eval_params, scores_file
from simclr.linear_eval.augmented_probe import probe_augmented
from simclr.linear_eval.baselines import pixel_features, untrained_features
from simclr.linear_eval.cached_probe import ProbeResult, probe_features
from simclr.linear_eval.confusion import confusion
from simclr.linear_eval.linear_eval_params import LinearEvalParams
from simclr.linear_eval.scores import balanced_scores, by_class, topk_accuracy, true_labels
from simclr.tracking import provenance
from simclr.tracking.tensorboard import Board, run_folder

if TYPE_CHECKING:
    from torch import Tensor

BETON, MODEL = Path("data/beton"), Path("models/encoder.safetensors")
FEATURES, SCORES = Path("data/features"), Path("data/scores.safetensors")
REPORTS = Path("reports/linear_eval")

HINT = "if the augmented probe was at work, set a smaller linear_eval.augmented.batch_size"


def main() -> None:
    parameters = params.load("linear_eval", LinearEvalParams)
    linear_eval_params.check(parameters, str(params_file.FILE))
    info = converted.load_info(BETON)
    classes = info.classes
    encoder, transform = encoder_file.load(MODEL, params_file.lookup(params_file.read(), "pretrain.model"))
    digests = feature_file.inputs(info, MODEL)
    if not info.labelled:
        leave_out(digests)
        return
    launch.on_every_gpu()
    splits = {name: converted.open_split(BETON, name) for name in ("train", "val", "test")}
    with open_session(memory_hint=HINT) as session:

        def encoded(*names: str) -> dict[str, encode.Features]:
            return {name: feature_file.load(FEATURES, name, splits[name], digests, session) for name in names}

        # loaded one after the other, because together they may not fit into memory
        inputs: dict[str, Callable[[], dict[str, encode.Features]]] = {
            "pretrained": lambda: encoded(*splits),
            "untrained": lambda: untrained_features(parameters.seed, encoder, transform, splits, session),
            "raw_pixels": lambda: pixel_features(transform, splits, session),
        }
        results = {
            name: probe_features(
                parameters.cached, make(), len(classes), session, f"probe, {name}", refit=parameters.refit
            )
            for name, make in inputs.items()
        }
        results["augmented"] = probe_augmented(
            parameters, encoder, transform, splits, encoded("val", "test"), session, len(classes)
        )
        if not session.is_main:
            return
    labels = true_labels(splits["test"])
    scores_file.save(SCORES, {name: result.scores for name, result in results.items()}, labels)
    report(results, classes, labels, len(splits["val"]))
    provenance.write(
        Path(__file__),
        [SCORES],
        digests,
        [encoder_file.option(encoder)],
        session.device,
        {0: session.world_size},
    )


def leave_out(inputs: dict[str, str]) -> None:
    """Images without labels: files that say so, because DVC asks for all outs."""
    scores_file.save(SCORES, {}, true_labels(converted.open_split(BETON, "test")))
    tables.write_json(REPORTS / "metrics.json", {})
    tables.write_csv(REPORTS / "predictions.csv", [{"actual": None, "predicted": None, "augmented": None}])
    tables.write_csv(REPORTS / "classes.csv", [{"class": None, "accuracy": None}])
    provenance.write(Path(__file__), [SCORES], inputs)
    print("linear_eval: left out, because these images have no labels")


def report(results: dict[str, ProbeResult], classes: list[str], labels: "Tensor", val: int) -> None:
    """Write the report; `val` is the number of images that the probes were chosen on."""
    counts = {name: confusion(result.scores.numpy(), labels.numpy()) for name, result in results.items()}
    accuracies = {}
    for name, result in results.items():
        top = topk_accuracy(result.scores, labels)
        accuracies[name] = top | limits("top1", top["top1"], len(labels)) | balanced_scores(counts[name])
    on_val = {name: 100 * results[name].val_accuracy for name in ("pretrained", "augmented")}
    metrics = {
        **{name: accuracies[name] for name in ("pretrained", "augmented", "untrained", "raw_pixels")},
        "gain_over_untrained": accuracies["pretrained"]["top1"] - accuracies["untrained"]["top1"],
        "gain_over_raw_pixels": accuracies["pretrained"]["top1"] - accuracies["raw_pixels"]["top1"],
        "chosen": {
            "log10_l2": math.log10(results["pretrained"].hyperparameter),
            "val_top1": on_val["pretrained"],
            **limits("val_top1", on_val["pretrained"], val),
            "augmented_lr": results["augmented"].hyperparameter,
            "augmented_val_top1": on_val["augmented"],
            **limits("augmented_val_top1", on_val["augmented"], val),
        },
    }
    tables.write_json(REPORTS / "metrics.json", metrics)
    predicted, augmented = (results[name].scores.argmax(dim=1).tolist() for name in ("pretrained", "augmented"))
    tables.write_csv(
        REPORTS / "predictions.csv",
        [
            {"actual": classes[actual], "predicted": classes[guess], "augmented": classes[other]}
            for actual, guess, other in zip(labels.tolist(), predicted, augmented, strict=True)
        ],
    )
    tables.write_csv(REPORTS / "classes.csv", by_class(counts["pretrained"], classes))
    with Board(run_folder("linear_eval")) as board:
        board.hparams(
            params_file.read(), {f"test/{name}_top1": accuracy["top1"] for name, accuracy in accuracies.items()}
        )
    print(
        f"linear_eval: test top-1 {accuracies['pretrained']['top1']:.2f} % (raw pixels "
        f"{accuracies['raw_pixels']['top1']:.2f} %, untrained encoder {accuracies['untrained']['top1']:.2f} %)"
    )


if __name__ == "__main__":
    entry.run("linear_eval", main)
