"""The command `simclr lr-range`."""

import argparse
import os

from simclr.core import entry, params, params_file, processor, processor_params
from simclr.core.processor_params import ProcessorParams
from simclr.lr_range.overrides import overridden


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="simclr lr-range",
        description="Train the recipe of params.yaml at a learning rate that rises exponentially, draw the loss over "
        "it, and name a value for pretrain.optimizer.lr.",
    )
    rate = "in the unit of pretrain.optimizer.lr (by default six powers of ten that suit the optimizer)"
    parser.add_argument("--lowest", type=float, metavar="LR", help=f"the first rate, {rate}")
    parser.add_argument("--highest", type=float, metavar="LR", help="the last rate, likewise")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="steps of training (default: 300)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="another parameter, for this test: pretrain.optimizer.name=sgd",
    )
    arguments = parser.parse_intermixed_args()
    values = overridden(params_file.read(), arguments.overrides)
    _set_processor(values)
    from simclr.lr_range.command import run  # not at the top: it loads the libraries that `_set_processor` is for

    run(values, arguments.lowest, arguments.highest, arguments.steps)


def _set_processor(values: dict[str, object]) -> None:
    """Take over the section `processor` of the `values` of params.yaml, as `scripts/stage` does for stages."""
    section = params.section_of(values, "processor", ProcessorParams, str(params_file.FILE))
    os.environ.update(processor_params.environment(section))
    if processor.mode() == "native":
        for variable in processor.HELD:  # set when `simclr` was imported
            os.environ.pop(variable, None)
    processor.hold()


if __name__ == "__main__":
    entry.run("lr_range", main)
