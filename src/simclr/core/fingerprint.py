"""Hexadecimal SHA-256 digests of values, files and code; and MD5 digests as DVC computes them."""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def of_values(values: Any) -> str:
    """The digest of nested mappings, lists and scalars, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def of_file(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_out(path: Path) -> str:
    """The `md5` of a file or a folder in dvc.lock.

    A folder's is that of a JSON list of its files, sorted by path, and ends in ".dir" (DVC 3).
    """
    if not path.is_dir():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    entries = [{"md5": _md5(file), "relpath": name} for name, file in sorted(files.items())]
    return hashlib.md5(json.dumps(entries).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


EXEMPT = ("simclr.tracking",)
"""Packages that report on a run and change no result."""


def of_code(module: str, options: Iterable[str] = (), without: Collection[str] = EXEMPT) -> dict[str, str]:
    """Digests by module name: of `module` and of every module of its package that it imports, directly or not.

    Comments, docstrings, white space and the version of Python do not count.

    Args:
        module: a module, such as "simclr.training.pretrain".
        options: modules of the same package that are imported by name at run time: "losses.nt_xent".
        without: modules or packages to leave out, together with the imports of theirs alone.
    """
    package = module.partition(".")[0]
    return _of_modules([module, *(f"{package}.{option}" for option in options)], package, without)


def of_program(file: Path, options: Iterable[str] = ()) -> str:
    """The digest of a stage's `file`, its imports and its `options`; only code counts, as in `of_code`."""
    tree = ast.parse(file.read_bytes())
    modules = _of_modules([*_imported_names(tree), *(f"simclr.{option}" for option in options)], "simclr", EXEMPT)
    return of_values([_structure(tree), modules])


def _of_modules(names: Iterable[str], package: str, without: Collection[str]) -> dict[str, str]:
    digests: dict[str, str] = {}
    pending = [name for name in names if f"{name}.".startswith(f"{package}.")]
    while pending:
        name = pending.pop()
        file = _source(name)
        if name in digests or file is None or any(f"{name}.".startswith(f"{exempt}.") for exempt in without):
            continue
        tree = ast.parse(file.read_bytes())
        digests[name] = of_values(_structure(tree))
        pending += [other for other in _imported_names(tree) if other.startswith(f"{package}.")]
    return dict(sorted(digests.items()))


def _structure(node: Any) -> Any:
    """The parts of a syntax tree that decide behaviour, as nested lists.

    Empty fields are left out, because newer versions of Python have more of them.
    """
    if isinstance(node, list):
        return [_structure(item) for item in node if not _is_prose(item)]
    if isinstance(node, ast.AST):
        fields = [(name, _structure(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *fields]
    return repr(node)


def _is_prose(node: Any) -> bool:
    """Whether `node` is a docstring, of a module, class, function or variable."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _source(name: str) -> Path | None:
    """The file of the module `name`, imported or not; None if there is no such module."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # a name within a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _imported_names(tree: ast.AST) -> Iterator[str]:
    """The names in the import statements of `tree` that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
