"""Other values for a run than those of params.yaml, as `dvc exp run -S` takes them, without writing the file."""

import copy
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from simclr.core.errors import UserError
from simclr.core.params_file import FILE


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The nested `values` of params.yaml with `overrides` such as "pretrain.optimizer.name=sgd", whose value is YAML.

    Raises:
        UserError: an override has no =, names no parameter, or its value is not valid YAML.
    """
    values = copy.deepcopy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"{override} is no override; one is key=value, as pretrain.optimizer.name=sgd")
        *sections, key = path.split(".")
        section: Any = values
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            raise UserError(f"{override}: {FILE} has no parameter {path}")
        try:
            section[key] = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError, RecursionError) as error:  # ValueError: the month 13
            raise UserError(f"{override}: the value is not valid YAML") from error
    return values
