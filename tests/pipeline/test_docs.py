"""The documents against the repository: every file, target, test, key and variable that they name exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from simclr.core import params_file, tables
from tests.helpers.programs import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "images/README.md", *sorted(ROOT.glob("docs/*.md"))]
TOPS = ("src", "stages", "tests", "docs", "reports", "scripts", "benchmarks", "images", ".github")
PACKAGES = [path.parent.name for path in ROOT.glob("src/simclr/*/__init__.py")]
FLAT = tables.flat(params_file.read(ROOT / "params.yaml"))
SECTIONS = "|".join(sorted({key.partition(".")[0] for key in FLAT}))
CODE = (
    "".join(
        path.read_text()
        for folder in ("src", "stages", "scripts", ".github")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".yml", "")
    )
    + (ROOT / "Makefile").read_text()
)
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
OUTS = (
    *(out for stage in PIPELINE["stages"].values() for out in stage.get("outs", ()) if isinstance(out, str)),
    "reports/seeds.json",
)
"""What is there after a run."""
OF_OTHERS = {"CUDA_VISIBLE_DEVICES"}
"""Variables that only libraries read."""


def quoted(text: str) -> list[str]:
    """What stands in backticks, and the lines of code."""
    return re.findall(r"`([^`]+)`", text) + [line.strip() for line in re.findall(r"^ {4,}(.+)$", text, re.MULTILINE)]


def exists(name: str) -> bool:
    """Whether a path of the repository, or of the library, is there."""
    return any(list(root.glob(name.rstrip("/"))) for root in (ROOT, ROOT / "src/simclr"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_it_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing: list[Any] = []
    missing += [link for link in re.findall(r"\]\((?!http)([^)#]+)", text) if not (document.parent / link).exists()]
    keys = {key for name in FLAT for key in (name, *(name[:at] for at, letter in enumerate(name) if letter == "."))}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    tests = {path.stem for path in ROOT.glob("tests/**/test_*.py")}
    for word in quoted(text):
        for path in re.findall(r"(?<![\w/])[\w.*-]+(?:/[\w.*-]+)+/?", word):
            if path.split("/")[0] in (*TOPS, *PACKAGES) and not exists(path) and not path.startswith(OUTS):
                missing.append(path)
        missing += [name for name in re.findall(rf"\b(?:{SECTIONS})(?:\.[a-z_0-9]+)+", word) if not known(name, keys)]
        missing += [target for target in re.findall(r"\bmake ([a-z-]+)", word) if target not in targets]
        missing += [name for name in re.findall(r"\btest_\w+\b", word) if name not in tests]
        variables = set(re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", word)) - OF_OTHERS
        missing += [name for name in variables if not re.search(rf"\b{name}\b", CODE)]
    assert missing == []


def known(name: str, keys: set[str]) -> bool:
    """Whether `name` is a parameter, a module of the library or something in one; files are looked for elsewhere."""
    owner = name.rpartition(".")[0]
    return (
        name in keys
        or name.endswith((".py", ".yaml"))
        or any(exists(f"{part.replace('.', '/')}.py") for part in (name, owner))
    )
