"""Sections of params.yaml as checked dataclasses.

Each module declares its own parameters as a keyword-only dataclass whose fields carry a type and, from the
functions below, the values they allow. No field has a default: params.yaml is the single source of truth, and
a key that it lacks is an error.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from simclr.failure import UserError

FILE = Path("params.yaml")
T = TypeVar("T")

_KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list[float]: "a list of numbers",
}


@dataclasses.dataclass(frozen=True)
class Allowed:
    """The values that a parameter may take beside null: in words ({kind}: those of its type), as a test."""

    words: str
    test: Callable[[Any], bool]


def _field(words: str, test: Callable[[Any], bool]) -> Any:
    return dataclasses.field(metadata={"allowed": Allowed(words, test)})


def above(low: float) -> Any:
    """A field whose value must be > `low` (or null where its type is optional)."""
    return _field(f"{{kind}} > {low}", lambda value: value > low)


def at_least(low: float) -> Any:
    """A field whose value must be >= `low` (or null where its type is optional)."""
    return _field(f"{{kind}} >= {low}", lambda value: value >= low)


def between(low: float, high: float) -> Any:
    """A field whose value must lie in [`low`, `high`] (or be null where its type is optional)."""
    return _field(f"{{kind}} from {low} to {high}", lambda value: low <= value <= high)


def choice(*values: Any) -> Any:
    """A field whose value must be one of `values` (or null where its type is optional)."""
    return _field("one of " + ", ".join(map(str, values)), lambda value: value in values)


def interval(low: float, high: float) -> Any:
    """A field for a list of two numbers [a, b] with `low` <= a <= b <= `high`."""
    return _field(
        f"two numbers [a, b] with {low} <= a <= b <= {high}",
        lambda value: len(value) == 2 and low <= value[0] <= value[1] <= high,
    )


def each_above(low: float) -> Any:
    """A field for a non-empty list of numbers > `low`."""
    return _field(f"a list of numbers > {low}", lambda value: len(value) > 0 and all(item > low for item in value))


def read(path: Path = FILE) -> dict[str, Any]:
    """All of params.yaml as plain dicts, lists and scalars (YAML 1.2, so that 1e-05 is a number).

    Raises:
        UserError: the file is missing, is not valid YAML, repeats a key, is no mapping, has anchors or tags.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        text = path.read_text(encoding="utf-8")
        # `dvc exp run -S` would change an anchored value and leave its aliases as they were
        for event in yaml.parse(text):
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                line = event.start_mark.line + 1
                raise UserError(f"{path}: line {line} has a YAML anchor, alias or tag; only plain values are allowed")
        content = yaml.load(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {_problem(error)}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: must hold sections named after the stages, not {_shown(content)}")
    return content


def load(section: str, schema: type[T], path: Path = FILE) -> T:
    """The section `section` of params.yaml as an instance of the dataclass `schema`, every value checked.

    Raises:
        UserError: an unknown or missing key, a wrong type or an impossible value; it names the key, what was
            given and what is allowed; or as `read`.
    """
    content = read(path)
    if section not in content:
        raise UserError(f"{path}: the section {section} is missing; there are: {_listed(content)}")
    if not isinstance(content[section], dict):
        raise UserError(f"{path}: {section} must be a section of keys, not {_shown(content[section])}")
    return check(content[section], schema, section, str(path))


def check(values: dict[str, Any], schema: type[T], name: str, origin: str) -> T:
    """The mapping `values` as an instance of `schema`; `name` and `origin` say in errors where it stands.

    Raises:
        UserError: an unknown or missing key, a wrong type or an impossible value; it names the key, what was
            given and what is allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(cast(Any, schema))}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {_listed(fields)}"
            raise UserError(f"{origin}: {name}.{_one_line(key)} is not a parameter; {hint}")
    config = OmegaConf.structured(schema)
    for key, field in fields.items():
        if key not in values:
            raise UserError(f"{origin}: {name}.{key} is missing; it takes {_takes(field)}")
        given = values[key]
        wrong = UserError(f"{origin}: {name}.{key} = {_shown(given)} is not allowed; it takes {_takes(field)}")
        if dataclasses.is_dataclass(field.type):
            if not isinstance(given, dict):
                raise wrong
            config[key] = check(given, cast(type, field.type), f"{name}.{key}", origin)
            continue
        try:
            config[key] = given
            kept = _kept(given, config[key])
        except (OmegaConfBaseException, OverflowError) as error:
            raise wrong from error
        allowed = field.metadata.get("allowed")
        if not kept or not (given is None or allowed is None or allowed.test(given)):
            raise wrong
    return cast(T, OmegaConf.to_object(config))


def _kept(given: Any, value: Any) -> bool:
    """Whether `value`, which OmegaConf made of `given`, says what was written there.

    OmegaConf also turns "3" into 3 and 2 into true, and fills in ${...}. Only 3 for 3.0 is welcome here.
    """
    if isinstance(value, ListConfig):
        return all(map(_kept, given, value))
    if isinstance(value, float):
        return type(given) in (int, float) and math.isfinite(value)
    return type(given) is type(value) and bool(given == value)


def _takes(field: "dataclasses.Field[Any]") -> str:
    """The words for what `field` accepts: 'an integer >= 1 or null'."""
    if dataclasses.is_dataclass(field.type):
        return f"the keys {_listed(inner.name for inner in dataclasses.fields(field.type))}"
    kinds = get_args(field.type)
    optional = type(None) in kinds
    kind = kinds[0] if optional else field.type
    words = _KINDS.get(kind, str(kind))
    if allowed := field.metadata.get("allowed"):
        words = allowed.words.format(kind=words)
    return words + (" or null" if optional else "")


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {_one_line(error.problem)}"
    return _one_line(error)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(_one_line, names))


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _shown(value: Any) -> str:
    """`value` on one line of at most 60 letters, much as params.yaml has it: true, null, "text"."""
    text = json.dumps(value, default=str, ensure_ascii=False, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."
