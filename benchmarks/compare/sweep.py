"""A sweep: named rows of parameters to compare with each other, in a YAML file.

    common: [pretrain.epochs=20]            # of every row; may be left out
    rows:
      nt_xent: []                           # the first row is what the others are compared with
      decoupled: [pretrain.loss=decoupled]

Each row is a list of overrides as `dvc exp run -S` takes them.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from simclr import check, presets
from simclr.core import params_file
from simclr.core.errors import UserError, raise_all
from simclr.core.printable import join_names, one_line

FOLDER = Path(__file__).parents[1] / "sweeps"
SEEDS = ("pretrain.seed", "linear_eval.seed")
"""In which the runs of a row differ."""
_NAME, _LONGEST = r"[A-Za-z0-9_]+([.+-][A-Za-z0-9_]+)*", 60
"""Names that can stand in the name of an experiment, which is one of Git's references and a folder's, and their
characters."""
_TAKES = f"it takes a text of up to {_LONGEST} letters, digits and _, between them . + or -"


@dataclass(frozen=True)
class Sweep:
    """The overrides of all rows, and of each by its name."""

    name: str
    common: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]


def read(name: str) -> Sweep:
    """The sweep of benchmarks/sweeps/`name`.yaml, or of the YAML file `name`.

    Raises:
        UserError: there is no such file, or it is not one of a sweep.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        there_are = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise UserError(f"{name}: no sweep ({error.strerror}); there are {there_are}, or a YAML file") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error, 200)}") from error
    if not _is_name(path.stem):
        raise UserError(f"{path}: {one_line(path.stem, 100)} cannot name a sweep: {_TAKES}")
    if not isinstance(content, dict) or not isinstance(content.get("rows"), dict) or not content["rows"]:
        raise UserError(f"{path}: needs rows, each a name with a list of overrides, as `nt_xent: []`")
    if unknown := content.keys() - {"common", "rows"}:
        raise UserError(
            f"{path}: {join_names(sorted(map(str, unknown)))} means nothing here; there are common and rows"
        )
    for row in content["rows"]:
        if not _is_name(row):
            raise UserError(f"{path}: {one_line(row, 100)} cannot name a row: {_TAKES}")
    return Sweep(
        path.stem,
        overrides(content.get("common", []), f"{path}: common"),
        {row: overrides(listed, f"{path}: {row}") for row, listed in content["rows"].items()},
    )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST and bool(re.fullmatch(_NAME, name))


def overrides(listed: Any, origin: str) -> tuple[str, ...]:
    """The overrides that are `listed`; `origin` says where, in errors.

    Raises:
        UserError: they are no list of texts, or one is of a seed that the runs of a row differ in.
    """
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise UserError(f"{origin} takes a list of overrides, as [pretrain.loss=decoupled]")
    for item in listed:
        if item.partition("=")[0].strip() in SEEDS:
            raise UserError(
                f"{origin}: {one_line(item, 100)} is not allowed: the runs of a row have the seeds 0, 1, ..."
            )
    return tuple(listed)


def values(changes: Sequence[str], origin: str) -> dict[str, Any]:
    """All of params.yaml after `changes`, which DVC itself applies; `origin` names them in errors.

    Raises:
        UserError: an override is malformed, of no parameter, or of several values; or as `check.pipeline`; or a file
            that is named is not there, or the images have no labels.
    """
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder, params_file.FILE)
        shutil.copyfile(params_file.FILE, changed)
        try:
            if several := [override for override in to_hydra_overrides(list(changes)) if override.is_sweep_override()]:
                raise UserError(f"{origin}: {several[0].input_line} has several values; make a row of each")
            apply_overrides(changed, list(changes))
        except (InvalidArgumentError, HydraException, OmegaConfBaseException) as error:
            raise UserError(f"{origin}: {one_line(error.__cause__ or error, 200)}") from error
        content = params_file.read(changed)
    checked = check.pipeline(content, origin)
    raise_all(UserError(f"{origin}: {error}") for error in check.missing_files(checked))
    pictures = Path(str(checked.fetch.folder))
    if checked.fetch.source == "folder" and pictures.is_dir() and not (pictures / "train").is_dir():
        raise UserError(f"{origin}: fetch.folder: {pictures} has no train/: images without labels cannot be compared")
    return content


def of_preset(preset: str) -> tuple[str, ...]:
    """The overrides that make params.yaml the preset, whatever it is now.

    Raises:
        UserError: there is no such preset.
    """
    return tuple(_leaves(presets.compose(preset)))


def _leaves(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield override(f"{prefix}{key}", value)


def override(key: str, value: Any) -> str:
    """`key`=`value` in Hydra's grammar, which takes JSON for texts, lists and null."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"
