"""Presets: whole experiments as Hydra config groups, composed into params.yaml.

The groups are the folders beside this file: `method`, `encoder`, `data`, and `experiment`, whose files are
the presets. config.yaml composes them; the command is `simclr presets`.
"""

import difflib
import io
import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import takewhile
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from simclr.core.errors import UserError

_OVERRIDE = re.compile(r"(?!\+*(experiment|hydra)\b)(~.+|.+=.*)", re.DOTALL)


def options(group: str) -> dict[str, str]:
    """The options of a config group by name, each with the one-line description at the start of its file."""
    option_files = (file for file in files(__name__).joinpath(group).iterdir() if file.name.endswith(".yaml"))
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
        for file in sorted(option_files, key=lambda file: file.name)
    }


def about(preset: str) -> str:
    """The comment at the start of the file of `preset`: purpose, source, result, departures, time and command."""
    lines = files(__name__).joinpath("experiment", f"{preset}.yaml").read_text(encoding="utf-8").splitlines()[1:]
    return "\n".join(takewhile(lambda line: line.startswith("#"), lines))


def compose(preset: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of `preset`, nested as in params.yaml, with `overrides` in Hydra's grammar on top.

    An override sets a parameter (`pretrain.epochs=500`) or exchanges a part (`encoder=resnet50`).

    Raises:
        UserError: there is no such preset, part or parameter, or an override is malformed.
    """
    presets = options("experiment")
    if preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        first = "a preset comes before what it changes; " if "=" in preset else ""
        raise UserError(f"there is no preset {preset}; {first}{hint}there are: {', '.join(presets)}")
    for override in overrides:
        if not _OVERRIDE.fullmatch(override):
            allowed = "parameters (pretrain.epochs=500) and parts (encoder=resnet50)"
            raise UserError(f"{override}: cannot be applied to {preset}: after the name of one preset come {allowed}")
    try:
        with hydra.initialize_config_module(__name__, version_base="1.3"):
            config = hydra.compose("config", [f"experiment={preset}", *overrides])
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        there_are = ", ".join(error.options or ())
        raise UserError(f"there is no {error.missing_cfg_file}; there are: {there_are}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: data=null
        if isinstance(error.__cause__, ConfigAttributeError):
            reason = f"there is no parameter or part {error.__cause__.full_key}"
        else:
            reason = str(error).partition("\n")[0]
            if reason.startswith(("LexerNoViableAltException", "Error parsing override")):  # such as brackets
                reason = """a text that is more than a word needs quotes of its own: 'fetch.folder="a (1)"'"""
        raise UserError(f"{' '.join(overrides)}: cannot be applied to {preset}: {reason}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def apply(values: dict[str, Any], text: str) -> str:
    """Set `values` in the YAML `text` of params.yaml; the order of keys and comments stay, but those within a list that
    changes.

    The layout is that of `dvc exp run -S`.

    Raises:
        UserError: a key of `values` is not in `text`.
    """
    yaml = YAML()
    content = yaml.load(text)
    _update(content, values, "")
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _update(section: Any, values: dict[str, Any], prefix: str) -> None:
    for key, value in values.items():
        name = prefix + key
        if key not in section:
            raise UserError(f"params.yaml has no key {name}")
        present = section[key]
        if isinstance(present, CommentedMap) != isinstance(value, dict):
            kind = "a section" if isinstance(present, CommentedMap) else "a single value"
            raise UserError(f"params.yaml has {kind} at {name}, which {value!r} is not")
        if isinstance(value, dict):
            _update(present, value, f"{name}.")
        elif present == value and isinstance(present, type(value)):  # 1 is not 1.0
            continue
        elif isinstance(present, CommentedSeq) and isinstance(value, list):
            _refill(present, value)
        else:
            section[key] = value


def _refill(present: CommentedSeq, items: list[Any]) -> None:
    """Replace the items of `present`, and keep the comment on the following key."""
    # ruamel stores that comment at the last item
    following = present.ca.items.pop(len(present) - 1, None)
    present[:] = items
    if following:
        present.ca.items[len(items) - 1] = following
