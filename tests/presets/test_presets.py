import copy
import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml

from simclr import presets
from simclr.check import pipeline
from simclr.conversion.convert import ConvertParams, encode
from simclr.core import params_file
from simclr.core.errors import UserError
from simclr.data import converted
from simclr.data.beton import RAW
from simclr.data.converted import DatasetInfo
from simclr.learning.schedule import scaled_lr
from simclr.presets.__main__ import main
from simclr.training import pretrain, recipe
from simclr.training.run_context import PretrainData, RunContext
from tests.helpers.betons import noise, stored
from tests.helpers.programs import unread
from tests.helpers.ranks import ALONE
from tests.training.test_pretrain import DIGESTS, striped

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
SCALING = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/presets.md").read_text(encoding="utf-8")
PARTS = sorted(presets.options("encoder"))
NAMES = list(presets.options("experiment"))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped params.yaml, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED, encoding="utf-8")
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process and returns what it printed."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["presets", *arguments])
        main()
        return capsys.readouterr().out

    return run


@cache
def _composed(name: str) -> dict[str, Any]:
    return presets.compose(name)


def composed(name: str) -> dict[str, Any]:
    """The values of a preset, which are composed once for all tests."""
    return copy.deepcopy(_composed(name))


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.strip() or line.lstrip().startswith("#")]


def keys(section: Any) -> Any:
    return [(key, keys(value)) for key, value in section.items()] if isinstance(section, dict) else None


def leaves(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in section.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def test_params_yaml_ships_with_the_preset_digits() -> None:
    assert presets.apply(presets.compose("digits"), SHIPPED) == SHIPPED, (
        "carry the new values over to src/simclr/presets/experiment/digits.yaml, "
        "or back with `simclr presets apply digits`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_sets_every_parameter_and_keeps_comments_and_order(name: str, file: Path) -> None:
    before = params_file.read(file)
    values = composed(name)
    text = presets.apply(values, SHIPPED)
    file.write_text(text, encoding="utf-8")
    after = params_file.read(file)
    assert after == values
    assert keys(after) == keys(before)
    assert {key: type(value) for key, value in leaves(after).items()} == {
        key: type(value) for key, value in leaves(values).items()
    }
    assert comments(text) == comments(SHIPPED)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_of_a_lossless_source_stay_as_they_are(name: str) -> None:
    sides = {
        "digits": 8, "cifar10": 32, "cifar100": 32, "svhn": 32, "fashion_mnist": 28, "stl10": 96, "tiny_imagenet": 64,
        "folder": None,
    }  # fmt: skip
    values = composed(name)
    side, section = sides[values["fetch"]["source"]], ConvertParams(**values["convert"])
    assert side is None or encode(np.zeros((side, side, 3), np.uint8), section).mode == RAW


@pytest.mark.parametrize("name", NAMES)
def test_digits_after_any_preset_restores_the_shipped_file(name: str) -> None:
    text = presets.apply(composed(name), SHIPPED)
    assert (text == SHIPPED) == (name == "digits")
    assert presets.apply(composed("digits"), text) == SHIPPED


@pytest.mark.parametrize("name", NAMES)
def test_dvc_leaves_the_layout_as_it_is(name: str, file: Path) -> None:
    text = presets.apply(composed(name), SHIPPED)
    file.write_text(text, encoding="utf-8")
    with modify_yaml(file):
        pass
    assert file.read_text(encoding="utf-8") == text
    # as `dvc exp run -S` does it, for every parameter, lists included
    current = leaves(params_file.read(file))
    apply_overrides(file, [f"{key}={json.dumps(value)}" for key, value in current.items()])
    assert file.read_text(encoding="utf-8") == text


def test_dvc_changes_only_the_lines_of_what_is_set(file: Path) -> None:
    apply_overrides(file, ["losses.nt_xent.temperature=0.055", "augment.crop.ratio=[0.6,1.9]"])
    old, new = SHIPPED.splitlines(), file.read_text(encoding="utf-8").splitlines()
    changed = [line for was, line in zip(old, new, strict=True) if was != line]
    assert changed == ["    - 0.6", "    - 1.9", "    temperature: 0.055"]


def test_show_prints_the_difference_and_writes_nothing(file: Path, command: Callable[..., str]) -> None:
    printed = command("show", "cifar10")
    assert file.read_text(encoding="utf-8") == SHIPPED
    head, _, difference = printed.partition("--- params.yaml\n")
    assert difference.startswith("+++ params.yaml (cifar10)\n@@ ")
    assert "\n-  source: digits\n+  source: cifar10\n" in printed
    assert head.startswith(f"# {presets.options('experiment')['cifar10']}\n#\n# Source: ")
    assert head.endswith("\n# Command: simclr presets apply cifar10 && make repro\n\n")


def header(name: str) -> dict[str, str]:
    """What the file of a preset begins with, by the names of its entries; an entry goes on in indented lines."""
    return dict(re.findall(r"^# (\w+): (.*)$", presets.about(name).replace("\n#   ", " "), re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_its_file_says_where_it_is_from_and_what_to_expect(name: str) -> None:
    entries = header(name)
    assert list(entries) == ["Source", "Result", "Departures", "Time", "Command"]
    assert re.search(r"measured here", entries["Result"], re.IGNORECASE)
    assert re.search(r"\((derived|measured)\b", entries["Time"])
    assert max(map(len, presets.about(name).splitlines())) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_the_command_in_its_file_applies_it(name: str) -> None:
    command = re.fullmatch(r"simclr presets apply (\S+)((?: \S+=\S+)*) && make repro", header(name)["Command"])
    assert command
    assert command[1] == name
    pipeline(presets.compose(name, command[2].split()), name)


@pytest.mark.parametrize("name", NAMES)
def test_a_derived_time_is_that_of_the_table(name: str) -> None:
    row = re.search(rf"^\| {name} \|[^|]+\| (\S+ \w+) d \|", SCALING.partition("\n## 8 GPUs\n")[0], re.MULTILINE)
    assert bool(row) == ("derived" in header(name)["Time"])
    if row:
        assert header(name)["Time"].startswith(f"{row[1]} of steps on an H100")


def test_the_commands_of_the_page_can_be_applied() -> None:
    commands = re.findall(r"^    simclr presets apply (.+)$", PAGE, re.MULTILINE)
    assert commands
    for command in commands:
        name, *overrides = command.split()
        recipe.checked(presets.compose(name, overrides), name)


@pytest.mark.parametrize(("epochs", "lr"), [(100, 0.06), (200, 0.06), (500, 0.03), (1000, 0.03)])
def test_a_length_on_cifar_has_its_epochs_and_its_rate_and_is_else_as_the_others(epochs: int, lr: float) -> None:
    names = [f"cifar10_{epochs}_epochs", f"cifar100_{epochs}_epochs"]
    assert f"\n| {epochs} | `{names[0]}` | `{names[1]}` | {lr} |" in PAGE
    expected = composed("cifar10_100_epochs")
    expected["pretrain"]["epochs"] = epochs
    expected["pretrain"]["optimizer"]["lr"] = lr
    for name, source in zip(names, ("cifar10", "cifar100"), strict=True):
        values = composed(name)
        expected["fetch"]["source"] = source
        expected["pretrain"]["validation"] = values["pretrain"]["validation"]
        assert values == expected


def test_resnet50_on_cifar_is_a_part_to_exchange() -> None:
    exchanged = presets.compose("cifar10_1000_epochs", ["encoder=resnet50"])
    assert exchanged == composed("cifar10_resnet50_1000_epochs")


@pytest.mark.parametrize("batch", [256, 512, 1024, 2048, 4096])
def test_a_batch_of_imagenet_has_the_rate_of_the_page(batch: int) -> None:
    row = re.search(rf"^\| {batch} \| `(imagenet.*)` \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    assert row
    name, *overrides = row[1].split()
    parameters = recipe.checked(presets.compose(name, overrides), name).parameters
    assert parameters.batch_size == batch
    peak = scaled_lr(parameters.optimizer.lr, batch, parameters.optimizer.lr_scaling)
    assert peak == pytest.approx(0.075 * batch**0.5)
    assert row[2] == f"{peak:.2f}"
    by_the_other = presets.compose("imagenet", [f"pretrain.batch_size={batch}"])["pretrain"]["optimizer"]
    assert row[3] == f"{scaled_lr(by_the_other['lr'], batch, by_the_other['lr_scaling']):.2f}"


def test_apply_prints_the_same_difference_and_writes_it(file: Path, command: Callable[..., str]) -> None:
    shown = command("show", "cifar10", "pretrain.epochs=7")
    assert shown.endswith(f"\n\n{command('apply', 'cifar10', 'pretrain.epochs=7')}")
    assert params_file.read(file) == presets.compose("cifar10", ["pretrain.epochs=7"])
    assert params_file.read(file)["pretrain"]["epochs"] == 7
    assert [path.name for path in file.parent.iterdir()] == ["params.yaml"]
    assert command("apply", "cifar10", "pretrain.epochs=7") == "params.yaml has these values already\n"


def test_overrides_exchange_parts_and_set_or_leave_parameters(file: Path, command: Callable[..., str]) -> None:
    file.write_text(SHIPPED.replace("folder: images", "folder: mine"), encoding="utf-8")
    command("apply", "cifar10", "encoder=resnet50", "linear_eval.augmented.lr=[0.1,0.2,0.3]", "~fetch.folder")
    content = params_file.read(file)
    assert content["models"]["resnet"]["depth"] == 50
    assert content["methods"]["simclr"]["head"]["hidden"] == 2048
    assert content["linear_eval"]["augmented"]["lr"] == [0.1, 0.2, 0.3]
    assert content["fetch"]["source"] == "cifar10"
    assert content["fetch"]["folder"] == "mine"


@pytest.mark.parametrize("verb", ["show", "apply"])
def test_a_value_that_no_stage_takes_is_not_written(verb: str, file: Path, command: Callable[..., str]) -> None:
    before = file.read_text()
    said = r"^params.yaml with cifar10 pretrain\.epochs=0: pretrain\.epochs = 0 is not allowed; it takes an "
    with pytest.raises(UserError, match=said):
        command(verb, "cifar10", "pretrain.epochs=0")
    assert file.read_text() == before


def test_what_follows_a_preset_is_not_what_its_file_describes(file: Path, command: Callable[..., str]) -> None:
    printed = command("show", "cifar10", "encoder=resnet50")
    described = "# Shown with encoder=resnet50; the lines above describe the preset alone."
    assert printed.startswith(f"{presets.about('cifar10')}\n{described}\n\n--- params.yaml\n")


@pytest.mark.parametrize("text", ["a/été (1)", "a b", "it's"])
def test_a_text_in_quotes_is_taken_as_it_is(text: str, file: Path, command: Callable[..., str]) -> None:
    command("apply", "imagenette", f'fetch.folder="{text}"')
    assert params_file.read(file)["fetch"]["folder"] == text


def test_a_link_stays_one_and_a_file_keeps_its_permissions(file: Path, command: Callable[..., str]) -> None:
    target = file.with_name("shared.yaml")
    file.rename(target)
    target.chmod(0o640)
    file.symlink_to(target.name)
    command("apply", "cifar10")
    assert file.is_symlink()
    assert params_file.read(target)["fetch"]["source"] == "cifar10"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert len(list(file.parent.iterdir())) == 2


def test_the_list_names_every_preset_and_part(command: Callable[..., str]) -> None:
    printed = command()
    for name in NAMES:
        assert any(line.startswith(f"{name} ") and len(line.split()) > 4 for line in printed.splitlines())
    assert f"\n  encoder={'|'.join(PARTS)}\n" in printed
    assert command("list") == printed


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("cifar1O", "there is no preset cifar1O; did you mean cifar10? there are: cifar10, cifar100, "),
        ("zzz", "there is no preset zzz; there are: cifar10, "),
    ],
)
def test_an_unknown_preset_is_said_in_one_line(preset: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        presets.compose(preset)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(NAMES[-1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder=vgg", f"there is no encoder/vgg; there are: {', '.join(PARTS)}"),
        ("encodr=x", "{}: cannot be applied to cifar10: there is no parameter or part encodr"),
        ("pretrain.foo=1", "{}: cannot be applied to cifar10: there is no parameter or part pretrain.foo"),
        ("+pretrain.foo=1", "params.yaml has no key pretrain.foo"),
        ("pretrain.views=3", "params.yaml has a section at pretrain.views, which 3 is not"),
        ("+pretrain.epochs.x=3", "params.yaml has a single value at pretrain.epochs, which {'x': 3} is not"),
        ("pretrain.epochs=1,2", "{}: cannot be applied to cifar10: Ambiguous value for argument"),
        ("pretrain.epochs", "{}: cannot be applied to cifar10: after the name of one preset come parameters (pre"),
        ("cifar100", "{}: cannot be applied to cifar10: after the name of one preset come parameters (pretrain.ep"),
        ("experiment=digits", "{}: cannot be applied to cifar10: after the name of one preset come parameters ("),
        ("hydra.job.name=x", "{}: cannot be applied to cifar10: after the name of one preset come parameters (pr"),
        ("fetch.folder=a/é", "{}: cannot be applied to cifar10: a text that is more than a word needs quotes of "),
        ("fetch.folder=a (1)", "{}: cannot be applied to cifar10: a text that is more than a word needs quotes o"),
        ("pretrain.epochs=[1", "{}: cannot be applied to cifar10: no viable alternative at input '[1'"),
        ("pretrain.epochs=${nope}", "{}: cannot be applied to cifar10: Interpolation key 'nope' not found"),
        ("pretrain.epochs=???", "{}: cannot be applied to cifar10: Missing mandatory value: epochs"),
        ("data=null", "{}: cannot be applied to cifar10: Config group override must be a string or a list"),
    ],
)
def test_an_override_that_cannot_be_applied_is_said_in_one_line(
    override: str, message: str, file: Path, command: Callable[..., str]
) -> None:
    with pytest.raises(UserError) as caught:
        command("apply", "cifar10", override)
    assert str(caught.value).startswith(message.replace("{}", override))
    assert "\n" not in str(caught.value)
    assert file.read_text(encoding="utf-8") == SHIPPED


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  source: digits\n", "", "params.yaml has no key fetch.source"),
        ("  source: digits\n", "  source: digits\n  source: digits\n", "params.yaml: not valid YAML: line "),
        ("fetch:", "fetsh:", "params.yaml has no key fetch"),
        (
            "  penalty:",
            "  penalty: 1\n  harm:",
            "params.yaml has a single value at pretrain.penalty, which {",
        ),
    ],
)
def test_a_damaged_params_yaml_is_said_in_one_line_and_stays(
    old: str, new: str, message: str, file: Path, command: Callable[..., str]
) -> None:
    assert SHIPPED.count(old) == 1
    damaged = SHIPPED.replace(old, new)
    file.write_text(damaged, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        command("apply", "cifar10")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert file.read_text(encoding="utf-8") == damaged


@pytest.mark.parametrize("items", [[7], [7, 8], [7, 8, 9]])
def test_a_list_that_grows_or_shrinks_keeps_the_comments_around_it(items: list[int]) -> None:
    text = "a:\n  # before\n  list:\n  - 1\n  - 2\n\n  # after\n  b: 3 # beside\n"
    expected = text.replace("  - 1\n  - 2\n", "".join(f"  - {item}\n" for item in items))
    assert presets.apply({"a": {"list": items}}, text) == expected


def test_an_error_of_the_command_is_one_line_and_exit_code_1(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simclr.presets", "apply", "cifar"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("presets: error: there is no preset cifar; did you mean cifar10? ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [(), ("--help",), ("show", "imagenet"), ("apply", "imagenet")])
def test_it_ends_without_a_word_where_nobody_reads_on(arguments: tuple[str, ...], unbuffered: bool, file: Path) -> None:
    done = unread(sys.executable, "-m", "simclr.presets", *arguments, folder=file.parent, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
    assert (file.read_text() == SHIPPED) == ("apply" not in arguments)


def tiny_dataset(folder: Path) -> Path:
    """What convert writes, of a few images: labels -1 are those of the unlabelled ones."""
    striped(folder / "train.beton", 16, 0)
    striped(folder / "val.beton", 6, 1)
    stored(folder / "unlabelled.beton", noise(17, 8, seed=2), np.full(17, -1))
    converted.save_info(
        folder, DatasetInfo(["lying", "standing"], [0.4] * 3, [0.3] * 3, DIGESTS | {"unlabelled": "2" * 64})
    )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_trains(name: str, tmp_path: Path) -> None:
    """Two steps of a narrow network as deep as that of the preset, on its split and its views."""
    small = ("models.resnet.width=0.125", "pretrain.batch_size=8", "pretrain.epochs=1", "pretrain.compile=false")
    chosen = recipe.checked(presets.compose(name, small), name)
    chosen.parameters.validation.neighbors = 1
    folder = tiny_dataset(tmp_path)
    source, train, val = (converted.open_split(folder, split) for split in (chosen.parameters.split, "train", "val"))
    assert len(source) == {"train": 16, "all": 22, "unlabelled": 17}[chosen.parameters.split]
    data = PretrainData(source, train, val, converted.load_info(folder))
    result = pretrain.pretrain(chosen, data, ALONE, RunContext())
    assert len(result.history) == 1
    assert np.isfinite(result.history[0]["loss"])
    assert all(weight.isfinite().all() for weight in result.encoder.parameters())
