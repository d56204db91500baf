"""Stage `finetune`: the encoder, or with layers of its head, trained further on a part of the labels, beside the same
network from scratch, in reports/finetune; the samples whose labels were used, in data/label_subsets.json.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from simclr.core import atomic, entry, fingerprint, params, params_file, tables
from simclr.core.errors import raise_all
from simclr.core.interval import limits
from simclr.data import converted
from simclr.distributed import launch
from simclr.distributed.session import open_session
from simclr.features import encoder_file, feature_file
from simclr.finetune import finetune_params
from simclr.finetune.encoder_with_head import join, untrained
from simclr.finetune.finetune import FinetuneResult, FineTuning, trainable
from simclr.finetune.finetune_params import FinetuneParams
from simclr.finetune.label_subset import label_subsets
from simclr.learning import head_file
from simclr.tracking import provenance

BETON, MODEL, HEAD = Path("data/beton"), Path("models/encoder.safetensors"), Path("models/head.safetensors")
SUBSETS, REPORTS = Path("data/label_subsets.json"), Path("reports/finetune")


def main() -> None:
    parameters = params.load("finetune", FinetuneParams)
    finetune_params.check(parameters, str(params_file.FILE))
    launch.on_every_gpu(parameters.batch_size)
    info = converted.load_info(BETON)
    splits = {name: converted.open_split(BETON, name) for name in ("train", "val", "test")}
    if info.labelled:
        raise_all(finetune_params.refusals(parameters, len(splits["train"])))
    encoder, transform = encoder_file.load(MODEL, params_file.lookup(params_file.read(), "pretrain.model"))
    inputs = feature_file.inputs(info, MODEL)
    head, count = head_file.load(HEAD, inputs["encoder"]), parameters.head_layers
    finetune_params.check_head(parameters, head.shape.layers if head else 0)
    starts = {
        "finetuned": partial(trainable, join(encoder, head, count)),
        "from_scratch": partial(untrained, encoder, head, count, parameters.seed),
    }
    labels, names = splits["train"].labels, partial(converted.load_names, BETON)
    subsets = list(label_subsets(parameters, labels, names)) if info.labelled else []
    metrics: dict[str, dict[str, Any]] = {}
    with open_session(memory_hint="set a smaller finetune.batch_size") as session:
        fine_tuning = FineTuning(parameters, transform, splits, len(info.classes), session)
        for subset in subsets:
            results = {
                network: fine_tuning.best(
                    start, subset.samples, subset.epochs, f"{subset.title}, {network.replace('_', ' ')}"
                )
                for network, start in starts.items()
            }
            metrics[subset.key] = {"labels": len(subset.samples), **figures(results, len(splits["test"]))}
        if not session.is_main:
            return
    samples = {subset.key: subset.samples.tolist() for subset in subsets}
    atomic.write_bytes(SUBSETS, f"{json.dumps(samples)}\n".encode())
    tables.write_json(REPORTS / "metrics.json", metrics)
    provenance.write(
        Path(__file__),
        [SUBSETS],
        inputs | {"head": fingerprint.of_file(HEAD)},
        [encoder_file.option(encoder)],
        session.device,
        {0: session.world_size},
    )
    gains = ", ".join(
        f"{subset.title} {metrics[subset.key]['finetuned']['top1']:.2f} % "
        f"(from scratch {metrics[subset.key]['from_scratch']['top1']:.2f} %)"
        for subset in subsets
    )
    left_out = "finetune.fractions is empty" if info.labelled else "these images have no labels"
    print(f"finetune: test top-1 with labels of {gains}" if gains else f"finetune: left out, because {left_out}")


def figures(results: Mapping[str, FinetuneResult], images: int) -> dict[str, Any]:
    """Accuracies on so many test `images` in percent, with intervals, and the learning rates that val chose."""
    accuracies = {
        name: {"top1": result.top1, "top5": result.top5, **limits("top1", result.top1, images)}
        for name, result in results.items()
    }
    return {
        **accuracies,
        "gain_over_scratch": results["finetuned"].top1 - results["from_scratch"].top1,
        "chosen": {f"{name}_lr": result.lr for name, result in results.items()},
    }


if __name__ == "__main__":
    entry.run("finetune", main)
