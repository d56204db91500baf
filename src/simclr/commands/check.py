"""`simclr check`: check params.yaml, and list the models, methods, losses and other options to choose from."""

import argparse

from simclr.core import options, params_file
from simclr.core.errors import raise_all


def main() -> None:
    argparse.ArgumentParser(
        prog="simclr check",
        description="Check every value of params.yaml, and list the models, methods, losses, ... to choose from.",
    ).parse_args()
    from simclr.check import missing_files, pipeline  # not at the top: it imports all stages, which takes seconds

    pipeline_params = pipeline(params_file.read())
    raise_all(missing_files(pipeline_params))
    print(f"{params_file.FILE}: every value is allowed")
    for key, package, selected in (
        ("fetch.source", "sources", pipeline_params.fetch.source),
        ("pretrain.model", "models", pipeline_params.pretrain.model),
        ("pretrain.method", "methods", pipeline_params.pretrain.method),
        ("pretrain.loss", "losses", pipeline_params.pretrain.loss),
        ("evaluate.evaluations", "evaluations", ", ".join(pipeline_params.evaluate.evaluations)),
        ("pretrain.views.augmentations", "augment", ", ".join(pipeline_params.pretrain.views.augmentations)),
    ):
        print(f"{key}: {selected}; there are {', '.join(options.names(package))}")
