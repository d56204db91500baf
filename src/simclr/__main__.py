"""The command `simclr`, or `python -m simclr`: the first argument names a subcommand, which reads the others."""

import argparse
import sys
from importlib import import_module

from simclr.core import entry

SUBCOMMANDS = {
    "check": (
        "simclr.commands.check",
        "check every value of params.yaml, and list the models, methods, losses, ... to choose from",
    ),
    "embed": ("simclr.commands.embed", "encode the images of a folder"),
    "search": ("simclr.commands.search", "find the images of a folder that are most similar to an image"),
    "list": ("simclr.commands.file_list", "list the images of a folder with their digests, for fetch.folder"),
    "export": ("simclr.commands.export", "write the encoder as a file of ONNX"),
    "report": ("simclr.commands.report", "compare experiments, branches and commits on one HTML page"),
    "presets": ("simclr.presets.__main__", "list the presets, show what one would change, or apply it"),
    "lr-range": ("simclr.lr_range.__main__", "name a learning rate for the recipe of params.yaml"),
}
"""For each subcommand its module, whose `main` reads sys.argv, and what it does."""


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    entry.run(name if name in SUBCOMMANDS else "simclr", _run)


def _run() -> None:
    width = max(map(len, SUBCOMMANDS))
    parser = argparse.ArgumentParser(
        prog="simclr",
        usage="simclr [-h] SUBCOMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            ["subcommands:"]
            + [f"  {name:{width}}  {purpose}" for name, (_, purpose) in SUBCOMMANDS.items()]
            + ["\n`simclr SUBCOMMAND --help` lists its arguments."]
        ),
    )
    parser.add_argument("subcommand", choices=SUBCOMMANDS, metavar="SUBCOMMAND", help="one of those below")
    subcommand = parser.parse_args(sys.argv[1:2]).subcommand
    sys.argv = [f"simclr {subcommand}", *sys.argv[2:]]
    import_module(SUBCOMMANDS[subcommand][0]).main()


if __name__ == "__main__":
    main()
