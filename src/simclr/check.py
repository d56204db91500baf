"""All of params.yaml: its sections, and the check of every value."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simclr.conversion.convert import ConvertParams
from simclr.core import options, params, params_file
from simclr.core.errors import UserError, gathered
from simclr.core.options import Option
from simclr.core.processor_params import ProcessorParams
from simclr.embed.embed_params import EmbedParams
from simclr.evaluations import EvaluateParams
from simclr.finetune import finetune_params
from simclr.finetune.finetune_params import FinetuneParams
from simclr.images import file_list
from simclr.images.names import is_image
from simclr.linear_eval import linear_eval_params
from simclr.linear_eval.linear_eval_params import LinearEvalParams
from simclr.sources import FetchParams
from simclr.training import recipe
from simclr.training.pretrain_params import PretrainParams

PLUG_POINTS = ("augment", "evaluations", "losses", "methods", "models")
"""Sections with a subsection for each option: see `options`."""


@dataclass(kw_only=True)
class Pipeline:
    """params.yaml."""

    processor: ProcessorParams
    augment: dict[str, Option]
    losses: dict[str, Option]
    methods: dict[str, Option]
    models: dict[str, Option]
    evaluations: dict[str, Option]
    fetch: FetchParams
    convert: ConvertParams
    pretrain: PretrainParams
    embed: EmbedParams
    linear_eval: LinearEvalParams
    finetune: FinetuneParams
    evaluate: EvaluateParams


def pipeline(values: dict[str, Any], origin: str = str(params_file.FILE)) -> Pipeline:
    """Check the nested `values` of params.yaml; `origin` names the file in errors.

    Raises:
        UserError: an unknown or missing section or key, or an impossible value; names all these keys, and what is
            allowed.
    """
    sections = Pipeline.__annotations__
    for name in values:
        if name not in sections:
            raise UserError(f"{origin}: {name} is no section of the pipeline; there are: {', '.join(sections)}")
    for name in sections:
        if name not in values:
            raise UserError(f"{origin}: the section {name} is missing")
        if not isinstance(values[name], dict):
            raise UserError(f"{origin}: {name} must be a section of keys")
    parameters = gathered(partial(_section, name, schema, values, origin) for name, schema in sections.items())
    checked = dict(zip(sections, parameters, strict=True))
    gathered(
        [
            partial(linear_eval_params.check, checked["linear_eval"], origin),
            partial(finetune_params.check, checked["finetune"], origin),
            partial(finetune_params.check_source, checked["finetune"], checked["fetch"].source, origin),
            partial(_check_head, checked, origin),
            partial(recipe.select, checked["pretrain"], lambda package, name: checked[package][name], origin),
        ]
    )
    return Pipeline(**checked)


def missing_files(checked: Pipeline, *, images: bool = True) -> Iterator[UserError]:
    """Files and folders that a value names and that are not there; without `images`, other than the folder of these."""
    file = checked.methods["pretrained"].parameters.file
    named = {
        "fetch.folder": checked.fetch.folder if images and checked.fetch.source == "folder" else None,
        "methods.pretrained.file": file if checked.pretrain.method == "pretrained" else None,
        "finetune.label_list": checked.finetune.label_list,
    }
    for key, path in named.items():
        if path not in (None, params.NO_FILE) and (reason := _why_missing(path)):
            yield UserError(f"{key}: {path} {reason}")
    folder = named["fetch.folder"]
    if folder is not None:
        yield from _unfit_images(folder)
    if named["methods.pretrained.file"] == params.NO_FILE:
        yield UserError(f"methods.pretrained.file: {file} holds no weights; name a file of weights")


def _unfit_images(path: str) -> Iterator[UserError]:
    """Why there are no images to read at `path`, a folder or a list of files, if it is there."""
    if os.path.isdir(path):
        if not any(is_image(name) for _, _, names in os.walk(path) for name in names):
            yield UserError(f"fetch.folder: {path} holds no images; name a folder that does")
    elif os.path.exists(path):
        try:
            file_list.read(Path(path))
        except UserError as error:
            yield UserError(f"fetch.folder: {error}")


def _why_missing(path: str) -> str:
    """Empty if `path` is there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _check_head(checked: dict[str, Any], origin: str) -> None:
    method = checked["methods"].get(checked["pretrain"].method)  # else `recipe.select` refuses it
    if method is not None:
        head = getattr(method.parameters, "head", None)
        finetune_params.check_head(checked["finetune"], head.layers if head else 0, origin)


def _section(name: str, schema: Any, values: dict[str, Any], origin: str) -> Any:
    if name in PLUG_POINTS:
        return options.check_all(name, values, origin)
    return params.check(values[name], schema, name, origin)
