"""Sections of params.yaml as checked dataclasses.

Each module declares its own parameters as a keyword-only dataclass whose fields carry a type and, from the
functions below, the values they allow. No field has a default: params.yaml is the single source of truth, and
a key that it lacks is an error.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from simclr.core import params_file
from simclr.core.errors import UserError, raise_all
from simclr.core.printable import format_value, join_names, one_line
from simclr.core.renamed import RENAMED

_LARGEST = {float: 1e6, int: 2**32 - 1}
"""The largest absolute value of a number: beyond it, float32 and the sizes of arrays overflow."""
NO_FILE = "weights/none"
"""The path of a file that stands for none, where DVC wants a file for every run."""
T = TypeVar("T")

_KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list[float]: "a list of numbers",
    list[int]: "a list of integers",
    list[str]: "a list of names",
}


@dataclasses.dataclass(frozen=True)
class Constraint:
    """The allowed values of a parameter, apart from null: in words ({kind} stands for its type), and as a test."""

    words: str
    test: Callable[[Any], bool]


def _field(words: str, test: Callable[[Any], bool]) -> Any:
    return dataclasses.field(metadata={"allowed": Constraint(words, test)})


def above(low: float) -> Any:
    """A field whose value must be > `low` (or null where its type is optional)."""
    return _field(f"{{kind}} > {low}", lambda value: value > low)


def at_least(low: float) -> Any:
    """A field whose value must be >= `low` (or null where its type is optional)."""
    return _field(f"{{kind}} >= {low}", lambda value: value >= low)


def between(low: float, high: float) -> Any:
    """A field whose value must lie in [`low`, `high`] (or be null where its type is optional)."""
    return _field(f"{{kind}} from {low} to {high}", lambda value: low <= value <= high)


def seed() -> Any:
    """A field for the seed of a random generator: an integer that NumPy, PyTorch and scikit-learn take."""
    return between(0, 2**32 - 1)


def path() -> Any:
    """A field for a path that DVC reads from params.yaml too: DVC turns a number into a text and does not expand ~."""
    return _field(
        "{kind}: a path without ${{, with ./ before a number and the home folder in full instead of ~",
        lambda value: value != "" and not value.startswith("~") and "\0" not in value,
    )


def choice(*values: Any) -> Any:
    """A field whose value must be one of `values` (or null where its type is optional)."""
    return _field("one of " + ", ".join(map(str, values)), lambda value: value in values)


def several(*values: str) -> Any:
    """A field for a list of some of `values`, each at most once, in any order."""
    return _field(
        f"a list of {', '.join(values)}, each at most once",
        lambda value: set(value) <= set(values) and len(set(value)) == len(value),
    )


def interval(low: float, high: float) -> Any:
    """A field for a list of two numbers [a, b] with `low` <= a <= b <= `high`."""
    return _field(
        f"two numbers [a, b] with {low} <= a <= b <= {high}",
        lambda value: len(value) == 2 and low <= value[0] <= value[1] <= high,
    )


def each_above(low: float) -> Any:
    """A field for a non-empty list of numbers > `low`."""
    return _field(f"a list of numbers > {low}", lambda value: len(value) > 0 and all(item > low for item in value))


def shares() -> Any:
    """A field for a list of numbers above 0 up to 1, which may be empty; all differ in the six digits of their
    percentage that a report shows."""
    return _field(
        "a list of different numbers above 0 up to 1, or []",
        lambda value: len({f"{100 * item:g}" for item in value}) == len(value) and all(0 < item <= 1 for item in value),
    )


def each_at_least(low: int) -> Any:
    """A field for a non-empty list of integers >= `low`."""
    return _field(f"a list of integers >= {low}", lambda value: len(value) > 0 and all(item >= low for item in value))


def load(section: str, schema: type[T], path: Path = params_file.FILE) -> T:
    """Load the section `section` of params.yaml into the dataclass `schema`, every value checked.

    Raises:
        UserError: an unknown or missing key, a wrong type or an impossible value; names the key, its value
            and what is allowed; or as `params_file.read`.
    """
    return section_of(params_file.read(path), section, schema, str(path))


def section_of(content: Mapping[str, Any], section: str, schema: type[T], origin: str) -> T:
    """The section `section` of `content`, the nested values of params.yaml, as `load` returns it.

    `origin` names the file in errors.

    Raises:
        UserError: as `load`.
    """
    if section not in content:
        raise UserError(f"{origin}: the section {section} is missing; there are: {join_names(content)}")
    if not isinstance(content[section], dict):
        raise UserError(f"{origin}: {section} must be a section of keys, not {format_value(content[section])}")
    return check(content[section], schema, section, origin)


def check(values: dict[str, Any], schema: type[T], name: str, origin: str) -> T:
    """The mapping `values` as an instance of `schema`; errors name the section `name` and the file `origin`.

    Raises:
        UserError: unknown or missing keys, wrong types or impossible values; names all these keys, their values and
            what is allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(cast(Any, schema))}
    unknown = [_unknown(key, fields, name, origin) for key in values if key not in fields]
    refused = list(unknown)
    config = OmegaConf.structured(schema)  # its fields convert and check what is assigned to them
    for key, field in fields.items():
        try:
            if key in values:
                _assign(config, field, values[key], f"{name}.{key}", origin)
            elif not unknown:  # which may be what is missing, misspelt
                raise UserError(f"{origin}: {name}.{key} is missing; it takes {_takes(field)}")
        except UserError as error:
            refused.append(error)
    raise_all(refused)
    return cast(T, OmegaConf.to_object(config))


def _unknown(key: Any, fields: Collection[str], name: str, origin: str) -> UserError:
    """The error for a `key` of the section `name` that is none of its `fields`."""
    near = difflib.get_close_matches(str(key), fields, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {join_names(fields)}"
    if new := RENAMED.get(f"{name}.{key}"):
        hint = f"it is {new} now"
    return UserError(f"{origin}: {name}.{one_line(key)} is not a parameter; {hint}")


def _assign(config: Any, field: "dataclasses.Field[Any]", value: Any, key: str, origin: str) -> None:
    """Assign the `value` of `key` in params.yaml to its `field` of `config`.

    Raises:
        UserError: a wrong type or an impossible value.
    """
    refused = refusal(key, value, _takes(field), origin)
    if dataclasses.is_dataclass(field.type):
        if not isinstance(value, dict):
            raise refused
        config[field.name] = check(value, cast(type, field.type), key, origin)
        return
    try:
        config[field.name] = value
        kept = _kept(value, config[field.name])
    except (OmegaConfBaseException, OverflowError) as error:
        raise refused from error
    allowed = field.metadata.get("allowed")
    if not kept or not (value is None or allowed is None or allowed.test(value)):
        raise refused
    if largest := _exceeded(config[field.name]):
        raise refusal(key, value, f"{_takes(field)}, and at most {largest:,.0f}", origin)


def refusal(key: str, value: Any, takes: str, origin: str = str(params_file.FILE)) -> UserError:
    """The error for a `value` of `key` that is not allowed; `takes` describes the allowed ones."""
    return UserError(f"{origin}: {key} = {format_value(value)} is not allowed; it takes {takes}")


def _kept(value: Any, converted: Any) -> bool:
    """Whether OmegaConf kept the `value` of params.yaml when it `converted` it.

    OmegaConf also turns "3" into 3 and 2 into true, and fills in ${...}. Only 3 for 3.0 is accepted here.
    """
    if isinstance(converted, ListConfig):
        return all(map(_kept, value, converted))
    if isinstance(converted, float):
        return type(value) in (int, float) and math.isfinite(converted)
    return type(value) is type(converted) and bool(value == converted)


def _exceeded(value: Any) -> float:
    """The largest allowed number if `value`, or an item of it, exceeds it; else 0."""
    if isinstance(value, ListConfig):
        return max(map(_exceeded, value), default=0)
    largest = _LARGEST.get(type(value), math.inf)
    return largest if largest < math.inf and abs(value) > largest else 0


def _takes(field: "dataclasses.Field[Any]") -> str:
    """The accepted values of `field` in words: 'an integer >= 1 or null'."""
    if dataclasses.is_dataclass(field.type):
        return f"the keys {keys_of(cast(type, field.type))}"
    kinds = get_args(field.type)
    optional = type(None) in kinds
    kind = kinds[0] if optional else field.type
    words = _KINDS.get(kind, str(kind))
    if allowed := field.metadata.get("allowed"):
        words = allowed.words.format(kind=words)
    return words + (" or null" if optional else "")


def keys_of(schema: type) -> str:
    """The keys of a section, in words."""
    return join_names(field.name for field in dataclasses.fields(schema))
