"""The command `simclr presets`: list the presets, show what one would change, or apply it."""

import argparse
import difflib
import signal

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
    if arguments.command is None:
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
    if not write:
        print(f"{presets.about(preset)}\n")
    before = params_file.FILE.read_text(encoding="utf-8")
    after = presets.apply(values, before)
    if before == after:
        print(f"{params_file.FILE} has these values already")
        return
    if write:
        from simclr.check import pipeline  # not at the top: it imports all stages, which takes seconds

        pipeline(YAML(typ="safe", pure=True).load(after), " ".join([preset, *overrides]))
        with replacing(params_file.FILE) as temporary:
            temporary.write_text(after, encoding="utf-8")
    new = f"{params_file.FILE} ({' '.join([preset, *overrides])})"
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(params_file.FILE), new, lineterm="")
    print("\n".join(lines))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # no traceback when the reader closes the pipe
    entry.run("presets", main)
