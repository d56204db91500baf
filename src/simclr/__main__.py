"""The command `python -m simclr check`: is params.yaml right, and what else could it say?"""

import argparse

from simclr.check import pipeline
from simclr.core import entry, options, params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m simclr")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check every value of params.yaml, and list the options of its plug points")
    parser.parse_args()
    checked = pipeline(params.read())
    print(f"{params.FILE}: every value is allowed")
    for key, package, chosen in (
        ("fetch.source", "sources", checked.fetch.source),
        ("pretrain.model", "models", checked.pretrain.model),
        ("pretrain.method", "methods", checked.pretrain.method),
        ("pretrain.loss", "losses", checked.pretrain.loss),
        ("pretrain.views.augmentations", "augment", ", ".join(checked.pretrain.views.augmentations)),
    ):
        print(f"{key}: {chosen}; there are {', '.join(options.names(package))}")


if __name__ == "__main__":
    entry.run("check", main)
