"""The command `simclr presets`: list the presets, show what one would change, or apply it."""

import argparse
import difflib
import shutil
import signal
import sys

from ruamel.yaml import YAML

from simclr import presets
from simclr.core import entry, params_file
from simclr.core.atomic import replacing


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr presets",
        description="Without a command: list the presets and the parts they are made of.",
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="as without a command")
    for command, purpose in [
        ("show", "print what a preset is for, and what it would change in params.yaml"),
        ("apply", "write a preset into params.yaml, and print what changed"),
    ]:
        subparser = commands.add_parser(command, help=purpose, description=f"{purpose.capitalize()}.")
        subparser.add_argument("preset")
        subparser.add_argument(
            "overrides",
            nargs="*",
            default=[],
            metavar="key=value",
            help="a parameter (pretrain.epochs=500) or a part (encoder=resnet50), in Hydra's grammar",
        )
    arguments = parser.parse_args()
    if arguments.command in (None, "list"):
        _list()
    else:
        _change_params(arguments.preset, arguments.overrides, write=arguments.command == "apply")


def _list() -> None:
    descriptions = presets.options("experiment")
    width = max(map(len, descriptions))
    for name, description in descriptions.items():
        print(f"{name:{width}}  {description}")
    print("\nparts to exchange:")
    for group in ("data", "encoder", "method"):
        print(f"  {group}={'|'.join(presets.options(group))}")


def _change_params(preset: str, overrides: list[str], *, write: bool) -> None:
    values = presets.compose(preset, overrides)
    params_file.read()  # says in one line what is wrong with the file
    before = params_file.FILE.read_text(encoding="utf-8")
    after = presets.apply(values, before)
    if write or overrides:
        from simclr.check import pipeline  # not at the top: it imports all stages, which takes seconds

        pipeline(YAML(typ="safe", pure=True).load(after), f"{params_file.FILE} with {' '.join([preset, *overrides])}")
    if not write:
        print(presets.about(preset))
        print(f"# Shown with {' '.join(overrides)}; the lines above describe the preset alone.\n" if overrides else "")
    if before == after:
        print(f"{params_file.FILE} has these values already")
        return
    if write:
        file = params_file.FILE.resolve()  # the file itself, where params.yaml is a link
        with replacing(file) as temporary:
            file.open("r+b").close()  # a file that may not be written is not replaced either
            temporary.write_text(after, encoding="utf-8")
            shutil.copymode(file, temporary)
    new = f"{params_file.FILE} ({' '.join([preset, *overrides])})"
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(params_file.FILE), new, lineterm="")
    print("\n".join(lines))
    if write:
        print(f"presets: {params_file.FILE} is written; dvc repro runs it", file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback when the reader closes the pipe
    entry.run("presets", main)
