"""Plug points: packages of simclr whose modules are options, selected by name.

An option's name is its module's. A plug point whose options have parameters has a section of its own in params.yaml:
`losses.nt_xent` is both the module `simclr.losses.nt_xent` and the section of its dataclass `Params`. A new option is a
new file (and its section); there is no registry to edit, and only the selected option is imported.
"""

from dataclasses import dataclass, is_dataclass
from functools import partial
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import Any

from simclr.core import params
from simclr.core.errors import UserError, gathered
from simclr.core.printable import join_names, one_line


@dataclass(frozen=True)
class Option:
    """An option of `package`, such as "losses", with its parameters."""

    package: str
    name: str
    parameters: Any

    @property
    def path(self) -> str:
        """Its section of params.yaml and, after "simclr.", its module: "losses.nt_xent"."""
        return f"{self.package}.{self.name}"

    @property
    def module(self) -> Any:
        return module(self.package, self.name)


def names(package: str) -> list[str]:
    """The options of `package`, such as "losses": its modules without a leading underscore."""
    modules = (
        file.name.removesuffix(".py") for file in files(f"simclr.{package}").iterdir() if file.name[-3:] == ".py"
    )
    return sorted(name for name in modules if name.isidentifier() and not name.startswith("_"))


def module(package: str, name: str) -> ModuleType:
    """The module of the option `name`, one of `names(package)`; no other is imported.

    Raises:
        UserError: it cannot be imported, or has none of the functions that its package names in `FUNCTIONS`.
    """
    try:
        imported = import_module(f"simclr.{package}.{name}")
        getattr(getattr(imported, "Params", None), "__annotations__", None)  # whose names Python 3.14 looks up here
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{_file(package, name)}: cannot be imported ({type(error).__name__}: {one_line(error, 200)})"
        ) from error
    functions = import_module(f"simclr.{package}").FUNCTIONS
    if not any(callable(getattr(imported, function, None)) for function in functions):
        raise UserError(f"{_file(package, name)}: has no function {' or '.join(functions)}")
    return imported


def _file(package: str, name: str) -> Traversable:
    return files(f"simclr.{package}") / f"{name}.py"


def checked(package: str, name: str, values: dict[str, Any], origin: str) -> Option:
    """The option `name` of `package` with its section of `values`, the nested content of params.yaml.

    `origin` names the file in errors.

    Raises:
        UserError: the section is missing, a value is not allowed, or as `module`, or that has no dataclass `Params`.
    """
    schema = getattr(module(package, name), "Params", None)
    if not (isinstance(schema, type) and is_dataclass(schema)):
        raise UserError(f"{_file(package, name)}: has no dataclass Params")
    sections = values.get(package)
    section = sections.get(name) if isinstance(sections, dict) else None
    if section is None:
        keys = params.keys_of(schema)
        raise UserError(f"{origin}: {package}.{name} is missing; it takes the keys {keys} (for {_file(package, name)})")
    if not isinstance(section, dict):
        raise UserError(f"{origin}: {package}.{name} must be a section of keys")
    return Option(package, name, params.check(section, schema, f"{package}.{name}", origin))


def check_all(package: str, values: dict[str, Any], origin: str) -> dict[str, Option]:
    """All options of `package`, as `checked` returns them; `values` has a section of it.

    Raises:
        UserError: as `checked`, or a section has no option.
    """
    there_are = names(package)
    for name in values[package]:
        if name not in there_are:
            raise UserError(f"{origin}: {package}.{one_line(name)} is no option; there are: {join_names(there_are)}")
    options = gathered(partial(checked, package, name, values, origin) for name in there_are)
    return {option.name: option for option in options}
