import dataclasses
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from simclr.core import params, params_file, tables
from simclr.core.errors import UserError, raise_all
from simclr.core.params import above, at_least, between, choice, each_above, interval, path
from simclr.core.renamed import RENAMED

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@dataclasses.dataclass(kw_only=True)
class Inner:
    hidden: int = at_least(1)
    dropout: float = between(0, 1)


@dataclasses.dataclass(kw_only=True)
class Schema:
    lr: float = above(0)
    epochs: int = at_least(1)
    compile: bool
    stem: str = choice("auto", "cifar", "imagenet")
    folder: str = path()
    layers: int = choice(2, 3)
    clip: float | None = above(0)
    patience: int | None
    scale: list[float] = interval(0, 1)
    grid: list[float] = each_above(0)
    inner: Inner


GOOD = {
    "lr": "1e-05",
    "epochs": "3",
    "compile": "true",
    "stem": "auto",
    "folder": "images",
    "layers": "2",
    "clip": "",
    "patience": "4",
    "scale": "[0.5, 1]",
    "grid": "[0.1]",
    "inner": "{hidden: 8, dropout: 0}",
}
TAKES = {
    "lr": "a number > 0",
    "epochs": "an integer >= 1",
    "compile": "true or false",
    "stem": "one of auto, cifar, imagenet",
    "folder": "a text: a path without ${, with ./ before a number and the home folder in full instead of ~",
    "layers": "one of 2, 3",
    "clip": "a number > 0 or null",
    "patience": "an integer or null",
    "scale": "two numbers [a, b] with 0 <= a <= b <= 1",
    "grid": "a list of numbers > 0",
    "inner": "the keys hidden, dropout",
    "inner.hidden": "an integer >= 1",
    "inner.dropout": "a number from 0 to 1",
}


def section(values: dict[str, str]) -> str:
    return "train:\n" + "".join(f"  {key}: {value}\n" for key, value in values.items())


def load(tmp_path: Path, text: str) -> Schema:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return params.load("train", Schema, path)


def error(tmp_path: Path, text: str) -> str:
    """The one line that `text` earns, without the file's name in front."""
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message.removeprefix(f"{tmp_path / 'params.yaml'}: ")


def test_a_valid_section_becomes_an_instance_with_values_of_the_declared_types(tmp_path: Path) -> None:
    loaded = load(tmp_path, section(GOOD))
    assert loaded == Schema(
        lr=1e-05, epochs=3, compile=True, stem="auto", folder="images", layers=2, clip=None, patience=4,
        scale=[0.5, 1.0], grid=[0.1], inner=Inner(hidden=8, dropout=0.0),
    )  # fmt: skip
    assert [type(value) for value in (loaded.lr, *loaded.scale, loaded.inner.dropout)] == [float] * 4
    assert type(loaded.scale) is list


def test_values_at_the_edge_of_what_is_allowed(tmp_path: Path) -> None:
    edge = {
        "lr": "5e-324",
        "epochs": "1",
        "scale": "[0, 0]",
        "inner": "{hidden: 1, dropout: 1}",
        "patience": "~",
    }
    loaded = load(tmp_path, section(GOOD | edge))
    assert (loaded.lr, loaded.epochs, loaded.scale, loaded.inner.dropout) == (5e-324, 1, [0.0, 0.0], 1.0)
    assert loaded.patience is None


def test_a_number_is_read_as_dvc_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(section(GOOD))
    apply_overrides(path, ["train.lr=1e-7"])
    assert "lr: 1e-07\n" in path.read_text()
    assert params.load("train", Schema, path).lr == 1e-7


@pytest.mark.parametrize(
    ("key", "written", "shown"),
    [
        # another type
        ("lr", "abc", '"abc"'),
        ("lr", '"0.1"', '"0.1"'),
        ("lr", "true", "true"),
        ("lr", "", "null"),
        ("lr", "{a: 1}", '{"a": 1}'),
        ("lr", "{[a]: 1}", "{}"),
        ("lr", "[0.1]", "[0.1]"),
        ("lr", "2024-01-01", '"2024-01-01"'),
        ("lr", '"\\u2028\\u202e\\uD800"', r'"\u2028\u202e\ud800"'),
        ("epochs", "3.0", "3.0"),
        ("epochs", '"3"', '"3"'),
        ("epochs", "true", "true"),
        ("compile", "1", "1"),
        ("compile", "yes", '"yes"'),
        ("folder", "2024", "2024"),
        ("folder", "[a]", '["a"]'),
        ("folder", "", "null"),
        ("patience", "4.5", "4.5"),
        ("clip", "none", '"none"'),
        ("grid", "0.1", "0.1"),
        ("grid", "{}", "{}"),
        ("grid", "{0: 1}", '{"0": 1}'),
        ("grid", "", "null"),
        ("grid", "[a]", '["a"]'),
        ("grid", "['1']", '["1"]'),
        ("grid", "[[1]]", "[[1]]"),
        ("grid", "[true]", "[true]"),
        ("grid", "[null]", "[null]"),
        ("inner", "5", "5"),
        ("inner", "", "null"),
        ("inner", "[1]", "[1]"),
        ("inner.hidden", "{b: 1}", '{"b": 1}'),
        ("inner.hidden", '"8"', '"8"'),
        # the right type, but out of range
        ("lr", "0", "0"),
        ("lr", ".nan", "NaN"),
        ("lr", ".inf", "Infinity"),
        ("lr", "1e400", "Infinity"),
        ("lr", "9" * 400, "9" * 57 + "..."),
        ("epochs", "-3", "-3"),
        ("clip", "-1", "-1"),
        ("inner.dropout", "1.5", "1.5"),
        ("inner.dropout", "-.inf", "-Infinity"),
        ("stem", "vit", '"vit"'),
        ("layers", "4", "4"),
        ("folder", '""', '""'),
        ("folder", "~/pictures", '"~/pictures"'),
        ("folder", '"~"', '"~"'),
        ("scale", "[-0.5, 1]", "[-0.5, 1]"),
        ("scale", "[1, 0.5]", "[1, 0.5]"),
        ("scale", "[1]", "[1]"),
        ("scale", "[.nan, 1]", "[NaN, 1]"),
        ("scale", "[0, 0.5, 1]", "[0, 0.5, 1]"),
        ("grid", "[]", "[]"),
        ("grid", "[0.1, 0]", "[0.1, 0]"),
        # OmegaConf's own notation means nothing here, whether it would resolve or not
        ("lr", '"${epochs}"', '"${epochs}"'),
        ("lr", '"${nothing}"', '"${nothing}"'),
        ("lr", '"${"', '"${"'),
        ("folder", '"${stem}"', '"${stem}"'),
        ("folder", '"${oc.env:HOME}"', '"${oc.env:HOME}"'),
        ("folder", '"a/${nothing}"', '"a/${nothing}"'),
        ("folder", '"???"', '"???"'),
        ("grid", '["${lr}"]', '["${lr}"]'),
    ],
)
def test_a_wrong_value_is_shown_beside_what_is_allowed(tmp_path: Path, key: str, written: str, shown: str) -> None:
    if key.startswith("inner."):
        inner = {"hidden": "8", "dropout": "0"} | {key.removeprefix("inner."): written}
        changed = {"inner": "{" + ", ".join(f"{name}: {value}" for name, value in inner.items()) + "}"}
    else:
        changed = {key: written}
    expected = f"train.{key} = {shown} is not allowed; it takes {TAKES[key]}"
    assert error(tmp_path, section(GOOD | changed)) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr:", "lrr:", "train.lrr is not a parameter; did you mean lr?"),
        ("hidden:", "hiden:", "train.inner.hiden is not a parameter; did you mean hidden?"),
        ("hidden:", "zzz:", "train.inner.zzz is not a parameter; there are: hidden, dropout"),
        ("hidden:", "2: 1, hidden:", "train.inner.2 is not a parameter; there are: hidden, dropout"),
        ("hidden:", '"z\\nz": 1, hidden:', "train.inner.z z is not a parameter; there are: hidden, dropout"),
        ("hidden:", '"\\e[2J": 1, hidden:', r"train.inner.\x1b[2J is not a parameter; there are: hidden, dropout"),
        (
            "hidden:",
            f"{'z' * 80}: 1, hidden:",
            f"train.inner.{'z' * 57}... is not a parameter; there are: hidden, dropout",
        ),
        ("hidden: 8, ", "", "train.inner.hidden is missing; it takes an integer >= 1"),
        ("  scale: [0.5, 1]\n", "", f"train.scale is missing; it takes {TAKES['scale']}"),
        ("  inner: {hidden: 8, dropout: 0}\n", "", f"train.inner is missing; it takes {TAKES['inner']}"),
        ("train:", "trian:", "the section train is missing; there are: trian"),
    ],
)
def test_an_unknown_or_missing_key_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert section(GOOD).count(old) == 1
    assert error(tmp_path, section(GOOD).replace(old, new)) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", 'not valid YAML: line 2: found duplicate key "a" with value "2"'),
        ("a:\n\tb: 1\n", "not valid YAML: line 2: found character '\\t' that cannot start any token"),
        ("a: [1\n", "not valid YAML: line 2: expected ',' or ']'"),
        ("a: 1\n---\nb: 1\n", "not valid YAML: line 2: but found another document"),
        ("a: 2024-13-45\n", "not valid YAML: month must be in 1..12"),
        ("a: \x01\n", "not valid YAML: unacceptable character #x0001"),
        ("a:\n  b: " + "[" * 3000, "line 2 is nested too deeply"),
        ("b:\na: !!bool x\n", "line 2 has a YAML anchor, alias or tag; only plain values are allowed"),
        ("b:\na: !python/tuple [1]\n", "line 2 has a YAML anchor, alias or tag; only plain values"),
        ("b:\na: &lr 1\n", "line 2 has a YAML anchor, alias or tag; only plain values are allowed"),
        ("b:\na: *lr\n", "line 2 has a YAML anchor, alias or tag; only plain values are allowed"),
        ("", "must hold sections named after the stages, not null"),
        ("# nothing\n", "must hold sections named after the stages, not null"),
        ("{}", "must hold sections named after the stages, not {}"),
        ("- train", 'must hold sections named after the stages, not ["train"]'),
        ("train: 3", "train must be a section of keys, not 3"),
        ("train:", "train must be a section of keys, not null"),
    ],
)
def test_what_is_no_file_of_sections_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    assert error(tmp_path, text).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError) as caught:
        params_file.read(path)
    assert str(caught.value) == f"{path}: not found; run this in the root of the repository, which holds it"
    path.write_bytes(b"lr: 1\ntrain: \xff\n")
    with pytest.raises(UserError) as caught:
        params_file.read(path)
    assert str(caught.value).startswith(
        f"{path}: not valid YAML: line 2: not UTF-8 ('utf-8' codec can't decode byte 0xff"
    )


def test_the_shipped_file_is_readable_and_has_its_scientific_numbers_as_numbers() -> None:
    content = params_file.read(SHIPPED)
    assert content["pretrain"]["optimizer"]["weight_decay"] == 1e-6


@pytest.mark.parametrize(
    ("key", "written", "largest"),
    [
        ("lr", "1e308", "1,000,000"),
        ("grid", "[0.1, 1e38]", "1,000,000"),
        ("epochs", "18446744073709551615", "4,294,967,295"),
    ],
)
def test_no_number_is_so_large_that_arithmetic_would_overflow(
    key: str, written: str, largest: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"train\.{key} = .* is not allowed; it takes .*, and at most {largest}$"):
        load(tmp_path, section(GOOD | {key: written}))


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_names_the_new_one(old: str) -> None:
    section, _, key = old.rpartition(".")
    with pytest.raises(UserError) as raised:
        params.check({key: 1}, Schema, section, "params.yaml")
    assert str(raised.value) == f"params.yaml: {old} is not a parameter; it is {RENAMED[old]} now"


def test_all_wrong_values_of_a_section_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load(tmp_path, section({**GOOD, "lr": "0", "layers": "4", "inner": "{hidden: 0, dropout: 2}"}))
    assert [message.partition(" is not")[0].rpartition(": ")[2] for message in str(raised.value).split("; ")[::2]] == [
        "train.lr = 0", "train.layers = 4", "train.inner.hidden = 0", "train.inner.dropout = 2",
    ]  # fmt: skip


def test_of_many_wrong_values_some_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.lr = \"x\" is not .*; and 2 more$") as raised:
        load(tmp_path, section(dict.fromkeys(GOOD, "x")))
    assert str(raised.value).count(" is not allowed") == 8
    with pytest.raises(UserError, match=r"and 3 more$") as again:
        raise_all([UserError("this is not allowed"), raised.value])
    assert str(again.value).count(" is not allowed") == 8


def test_a_key_that_lacks_is_named_once_all_keys_are_known(tmp_path: Path) -> None:
    values = {key: value for key, value in GOOD.items() if key not in ("epochs", "grid")}
    with pytest.raises(UserError) as raised:
        load(tmp_path, section({**values, "epoch": "3", "zzz": "1", "lr": "-1"}))
    for expected in (
        "epoch is not a parameter; did you mean epochs?",
        "zzz is not a parameter; there are: ",
        "lr = -1",
    ):
        assert f"train.{expected}" in str(raised.value)
    assert "is missing" not in str(raised.value)
    with pytest.raises(UserError, match=r"epochs is missing; it takes an integer >= 1; .*: train.grid is missing"):
        load(tmp_path, section(values))


def test_every_new_key_exists() -> None:
    keys = tables.flat(params_file.read(SHIPPED)).keys()
    assert all(any(f"{key}.".startswith(f"{new}.") for key in keys) for new in RENAMED.values())


def test_what_stands_at_a_key_can_be_looked_up() -> None:
    content = {"a": {"b": {"c": 3}}, "d": 4}
    keys = ["a", "a.b.c", "d", "a.x", "x.y", "d.e"]
    assert [params_file.lookup(content, key) for key in keys] == [{"b": {"c": 3}}, 3, 4, None, None, None]
