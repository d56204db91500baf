"""Digests (SHA-256, in hexadecimal) by which values, files and code are told apart."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def of_values(values: Any) -> str:
    """Of nested mappings, lists and scalars, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def of_file(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_code(package: str, without: str) -> dict[str, str]:
    """Of the source of every module of `package` that this process has imported, by name; not those in `without`."""
    sources = {
        name: Path(module.__file__)
        for name, module in sorted(sys.modules.items())
        if f"{name}.".startswith(f"{package}.") and not f"{name}.".startswith(f"{without}.") and module.__file__
    }
    return {name: of_file(path) for name, path in sources.items()}
