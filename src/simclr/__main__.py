"""The command `python -m simclr check`: check params.yaml, and list the options of its plug points."""

import argparse

from simclr.check import pipeline
from simclr.core import entry, options, params_file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m simclr")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check every value of params.yaml, and list the options of its plug points")
    parser.parse_args()
    pipeline_params = pipeline(params_file.read())
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


if __name__ == "__main__":
    entry.run("check", main)
