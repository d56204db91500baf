"""Options that are files: the module's name in its package is the option's name."""

from importlib import import_module
from importlib.resources import files
from types import ModuleType


def names(package: str) -> list[str]:
    """The options of `package`, such as "simclr.sources": its modules, but for those that begin with an underscore."""
    found = (file.name.removesuffix(".py") for file in files(package).iterdir() if file.name.endswith(".py"))
    return sorted(name for name in found if not name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """The module of the option `name`, one of `names(package)`; no other is imported."""
    return import_module(f"{package}.{name}")
