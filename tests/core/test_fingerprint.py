import hashlib
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from simclr.core import fingerprint, params_file
from simclr.training import recipe


def test_values_are_told_apart_whatever_the_order_of_their_keys() -> None:
    first = fingerprint.of_values({"a": 1, "b": {"c": [1, 2.5], "d": None}})
    assert first == fingerprint.of_values({"b": {"d": None, "c": [1, 2.5]}, "a": 1})
    assert first != fingerprint.of_values({"a": 1, "b": {"c": [2.5, 1], "d": None}})
    assert len(first) == 64


def test_a_file_s_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes" * 1000)
    assert fingerprint.of_file(tmp_path / "file") == hashlib.sha256(b"bytes" * 1000).hexdigest()


def test_code_is_a_module_and_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "thing"
    (package / "report").mkdir(parents=True)
    sources = {
        "__init__": "", "top": "import json\nfrom thing import middle, report\nfrom thing.report import board",
        "middle": "import thing.below as below\nfrom thing.reporter import NAME", "below": "", "reporter": "NAME = 1",
        "unrelated": "import thing.top", "report/__init__": "", "report/board": "import thing.style", "style": "",
    }  # fmt: skip
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("thing.unrelated", "thing.top"):
        __import__(name)
    found = fingerprint.of_code("thing.top", without=["thing.report"])
    for name in [name for name in sys.modules if name.startswith("thing")]:
        monkeypatch.delitem(sys.modules, name)
    assert list(found) == ["thing.below", "thing.middle", "thing.reporter", "thing.top"]


CODE = """
# why
X = [1, 2]  # a comment


def f(x, *, y=None):
    \"\"\"What it does.\"\"\"
    return f"{x + 1:>3}" + 'a' 'b'


class C:
    a: int = 0
    \"\"\"An attribute.\"\"\"
"""


def digest(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(folder)
    (folder / "single.py").write_text(code)
    return fingerprint.of_code("single", without=[])["single"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# why\n", ""), ("  # a comment", " # another"), ("What it does.", "What it is for."),
        ("    a: int", "\n\n    a: int"),
        ('    """What it does."""\n', ""), ("[1, 2]", "[\n    1,\n    2,\n]"), ("An attribute", "It"),
        ("'a' 'b'", '"ab"'),
    ],
)  # fmt: skip
def test_prose_and_white_space_are_no_code(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert before in CODE
    known = digest(CODE, tmp_path, monkeypatch)
    assert digest(CODE.replace(before, after), tmp_path, monkeypatch) == known


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[1, 2]", "[2, 1]"), ("[1, 2]", "(1, 2)"), ("x + 1", "x - 1"), (">3", "<3"), ("*, ", ""),
        ("'a' 'b'", "'a', 'b'"),
        ("y=None", "y=0"), ("y=None", "y=False"), ("a: int = 0", "a: int"), ("return f", "yield f"), ("1, 2", "1, 2.0"),
    ],
)  # fmt: skip
def test_every_change_of_code_counts(before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert before in CODE
    known = digest(CODE, tmp_path, monkeypatch)
    assert digest(CODE.replace(before, after), tmp_path, monkeypatch) != known


def test_all_versions_of_python_give_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest(CODE, tmp_path, monkeypatch) == "c770b77bfaebec245924bbcd2a3083afccad048332896017af08a25108175bc4"


def package(path: str) -> str:
    return "/".join(path.split("/")[:3])


def test_the_code_of_pretraining_is_what_its_stage_depends_on() -> None:
    root = Path(__file__).parents[2]
    stages = YAML(typ="safe").load((root / "dvc.yaml").read_text())["stages"]
    options = [option.path for option in recipe.checked(params_file.read(root / "params.yaml"), "").options]
    of_code = {f"src/{name.replace('.', '/')}" for name in fingerprint.of_code("simclr.training.pretrain", options)}
    listed = {dep for dep in stages["pretrain"]["deps"] if dep.startswith("src/")}
    assert {package(path) for path in of_code} == {package(path) for path in listed}


def test_files_and_folders_have_the_digests_of_dvc(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in.ner").mkdir()
    for name, text in {"b": "a", "in/a": "b", "in.ner/a": "c", "é": "d"}.items():
        (tmp_path / name).write_text(text)
    assert fingerprint.of_out(tmp_path / "b") == "0cc175b9c0f1b6a831c399e269772661"
    # by `dvc add`, 3.67
    assert fingerprint.of_out(tmp_path) == "e00d7ed731ccf672406505cea8e359db.dir"
