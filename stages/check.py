"""Check all of params.yaml before any stage runs, including the values of later stages, and that srun runs DVC once.

    python stages/check.py pretrain

runs before stages/pretrain.py, by `scripts/stage`, and prints the environment of the section `processor`. It is a
program of its own because it must not be a dependency of stages: a change of linear_eval's allowed values must not
rerun a pretraining.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import simclr
from simclr.core import entry, params, params_file, processor_params
from simclr.core.errors import gathered, raise_all
from simclr.core.processor_params import ProcessorParams
from simclr.distributed import slurm

BETON = Path("data/beton")
BEFORE_ALL = "repro"
"""In place of a stage: `make repro` checks before DVC begins."""
AFTER_CONVERT = ("pretrain", "embed", "linear_eval", "finetune", "evaluate", "draw", "card")
"""Stages that run after data/beton has been updated to params.yaml."""


def main() -> None:
    slurm.check_alone()
    values = params_file.read()
    known = (BETON / "dataset.json").exists() and sys.argv[1] in AFTER_CONVERT
    listed = Path(str(params_file.lookup(values, "finetune.label_list")))
    passed = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "tmp", f"checked-{digest(known, listed)}")
    before_all = sys.argv[1] == BEFORE_ALL
    if not passed.exists() or before_all:
        check(values, known, before_all)
        with suppress(OSError):  # a read-only repository, or none
            passed.touch()
    processor = params.section_of(values, "processor", ProcessorParams, str(params_file.FILE))
    environment = processor_params.environment(processor)
    print(*(f"{name}={value}" for name, value in environment.items()))


def digest(known: bool, listed: Path) -> str:
    """The digest of the check's input: the check takes seconds of imports, once for the same input."""
    content = hashlib.sha256()
    code = sorted(Path(simclr.__file__).parent.rglob("*.py"))
    for path in (params_file.FILE, Path(__file__), *code, listed, *([BETON / "dataset.json"] if known else [])):
        with suppress(OSError, ValueError):  # ValueError: of a NUL in a name, which the check refuses
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def check(values: dict[str, Any], known: bool, before_all: bool) -> None:
    """Check all `values` and that the files which they name are there; the images and the options of torchrun only
    `before_all` stages. If the data are `known`, check the values against them too.

    Raises:
        UserError: names the key, its value and what is allowed.
    """
    from simclr import evaluations
    from simclr.check import missing_files, pipeline
    from simclr.data import converted
    from simclr.distributed import torchrun_options
    from simclr.embed import embed_params
    from simclr.finetune import finetune_params, label_subset
    from simclr.training import pretrain_params, recipe

    if before_all:
        together = (torchrun_options.nodes() or 1) * (torchrun_options.processes() or 1)
    checked = pipeline(values)
    if before_all:
        raise_all(pretrain_params.process_refusals(checked.pretrain, together))
    raise_all(missing_files(checked, images=before_all))  # once they are fetched, the images may be gone
    if checked.finetune.label_list != params.NO_FILE:
        label_subset.read_list(Path(checked.finetune.label_list))
    if known:
        split = checked.pretrain.split
        if not converted.has_split(BETON, split):
            raise params.refusal("pretrain.split", split, f"train or {converted.ALL}, as these data have no such split")
        images = {name: converted.open_split(BETON, name) for name in ("train", "val", "test")}
        source, train, test = (
            len(item) for item in (converted.open_split(BETON, split), images["train"], images["test"])
        )
        selected = recipe.checked(values, str(params_file.FILE))
        refused = [*recipe.refusals(selected, source)]
        checks: list[Callable[[], object]] = []
        if converted.load_info(BETON).labelled:
            labels_by_split = {name: item.labels for name, item in images.items()}
            for name in checked.evaluate.evaluations:
                refused += evaluations.refusals(checked.evaluations[name], labels_by_split)
            refused += pretrain_params.validation_refusals(checked.pretrain, train)
            refused += finetune_params.refusals(checked.finetune, train)
            names = partial(converted.load_names, BETON)
            checks.append(partial(list, label_subset.label_subsets(checked.finetune, images["train"].labels, names)))
        else:
            refused += recipe.refusals_without_labels(selected)
        gathered([partial(raise_all, [*refused, *embed_params.refusals(test)]), *checks])


if __name__ == "__main__":
    entry.run(sys.argv[1], main)
