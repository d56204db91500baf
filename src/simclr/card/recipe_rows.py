"""The recipe of a pretraining in words: what of params.yaml is in use."""

from collections.abc import Mapping
from typing import Any

from simclr.card.markdown import code
from simclr.core import params_file, tables
from simclr.core.errors import UserError
from simclr.core.printable import format_value

_OWN_LOSS = {
    "byol": "squared distance of predictions and target projections, on the sphere (Grill et al. 2020, equation 2)",
    "classifier": "cross entropy with the labels",
}
"""Methods that do not use `pretrain.loss`, and their losses."""
_LOADED = "pretrained"
"""The method that trains nothing."""
Rows = list[tuple[str, str]]


def value(values: Mapping[str, Any], key: str) -> Any:
    """What stands at `key` in the nested `values` of params.yaml.

    Raises:
        UserError: nothing stands there.
    """
    entry = params_file.lookup(values, key)
    if entry is None:
        raise UserError(f"{params_file.FILE}: {key} is missing")
    return entry


def name(values: Mapping[str, Any], key: str) -> str:
    """The name that stands at `key`, as of an option.

    Raises:
        UserError: none stands there.
    """
    option = value(values, key)
    if not isinstance(option, str):
        raise UserError(f"{params_file.FILE}: {key} must be a name, not {format_value(option)}")
    return option


def is_trained(values: Mapping[str, Any]) -> bool:
    """Whether the method trains; else its weights are from elsewhere."""
    return name(values, "pretrain.method") != _LOADED


def options_in_use(values: Mapping[str, Any]) -> list[str]:
    """The method, its loss if it is an option, and the augmentations: "methods.simclr", "losses.nt_xent", ...

    Raises:
        UserError: a key is missing.
    """
    method = name(values, "pretrain.method")
    if not is_trained(values):
        return [f"methods.{method}"]
    loss = [] if method in _OWN_LOSS else [f"losses.{name(values, 'pretrain.loss')}"]
    return [f"methods.{method}", *loss, *(f"augment.{step}" for step in _augmentations(values))]


def recipe_rows(values: Mapping[str, Any]) -> Rows:
    """The rows of a table: what it is, and its value, both in Markdown.

    Values that are null, penalties of 0, and options that are not chosen, are left out.

    Raises:
        UserError: a key is missing.
    """
    method = name(values, "pretrain.method")
    if not is_trained(values):
        section = _section(values, f"methods.{method}")
        # the card's row on the input tells which normalization it was
        own = {key: item for key, item in section.items() if key != "normalization"}
        return [("Method", f"{_with(method, own)}: the weights are from elsewhere")]
    loss = _OWN_LOSS.get(method) or _option(values, "losses", name(values, "pretrain.loss"))
    steps = ", then ".join(_option(values, "augment", step) for step in _augmentations(values))
    return [
        ("Method", _option(values, "methods", method)),
        ("Loss", loss),
        ("Views of an image", _views(values)),
        ("Augmentations", steps or "none"),
        ("Optimiser", _named(values, "pretrain.optimizer", "name")),
        ("Batch", f"{_quoted(values, 'pretrain.batch_size')} images{_pieces(values)}"),
        ("Epochs", _quoted(values, "pretrain.epochs")),
        *_window(values),
        *_penalties(values),
        *_early_stopping(values),
        ("Precision", f"{_quoted(values, 'pretrain.precision')} (auto is bf16 on a GPU that has it, else fp32)"),
        ("Seed", _quoted(values, "pretrain.seed")),
    ]


def _window(values: Mapping[str, Any]) -> Rows:
    if params_file.lookup(values, "pretrain.shuffle_window") is None:
        return []
    return [("Shuffled at a time", f"{_quoted(values, 'pretrain.shuffle_window')} images")]


def _augmentations(values: Mapping[str, Any]) -> list[str]:
    steps = value(values, "pretrain.views.augmentations")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise UserError(f"{params_file.FILE}: pretrain.views.augmentations must be a list of names")
    return steps


def _views(values: Mapping[str, Any]) -> str:
    key = "pretrain.views"
    text = f"{_quoted(values, f'{key}.count')} of {_pixels(values, f'{key}.resolution')}"
    if not value(values, f"{key}.small.count"):
        return text
    small = f"{_quoted(values, f'{key}.small.count')} of {_pixels(values, f'{key}.small.resolution')}"
    return f"{text}, and {small}, whose crops have the scale {_quoted(values, f'{key}.small.scale')}"


def _option(values: Mapping[str, Any], package: str, option: str) -> str:
    return _with(option, _section(values, f"{package}.{option}"))


def _section(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = value(values, key)
    if not isinstance(section, dict):
        raise UserError(f"{params_file.FILE}: {key} must be a section of keys")
    return section


def _named(values: Mapping[str, Any], key: str, key_of_name: str) -> str:
    """The section `key`, whose value `key_of_name` is a name, and the others belong to it."""
    others = {other: item for other, item in _section(values, key).items() if other != key_of_name}
    return _with(name(values, f"{key}.{key_of_name}"), others)


def _with(option: str, section: Mapping[str, Any]) -> str:
    """A name and the values that belong to it, those that are null apart."""
    leaves = {key: _text(item) for key, item in tables.flat(section).items()}
    own = ", ".join(f"{key}: {item}" for key, item in leaves.items() if item not in ("null", ""))
    return f"{code(option)} with {code(own, longest=500)}" if own else code(option)


def _text(item: Any) -> str:
    """A value nearly as in params.yaml."""
    return str(item).lower() if isinstance(item, bool) else str(item)


def _quoted(values: Mapping[str, Any], key: str) -> str:
    return code(_text(value(values, key)))


def _pixels(values: Mapping[str, Any], key: str) -> str:
    side = _text(value(values, key))
    return f"{code(f'{side} x {side}')} pixels"


def _pieces(values: Mapping[str, Any]) -> str:
    pieces = params_file.lookup(values, "pretrain.piece_size")
    return "" if pieces is None else f", computed {_quoted(values, 'pretrain.piece_size')} at a time"


def _penalties(values: Mapping[str, Any]) -> Rows:
    strengths = tables.flat(_section(values, "pretrain.penalty"))
    used = ", ".join(f"{key}: {_text(item)}" for key, item in strengths.items() if item)
    return [("Penalty", code(used))] if used else []


def _early_stopping(values: Mapping[str, Any]) -> Rows:
    if params_file.lookup(values, "pretrain.early_stopping.patience") is None:
        return []
    return [("Early stopping", _named(values, "pretrain.early_stopping", "watch"))]
