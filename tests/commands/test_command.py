"""The command `simclr`."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from simclr import __main__ as command
from simclr.commands import report
from simclr.core.errors import UserError
from tests.commands.folders import ENCODER, pictures
from tests.helpers.programs import ROOT, unread


def simclr(code: str, folder: Path) -> str:
    """What `code` prints in a process of its own, after the command's `main` and sys."""
    before = "import sys\nfrom simclr.__main__ import main\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", before + code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", ["simclr --help", "simclr embed --help", "simclr.lr_range --help"])
def test_it_ends_without_a_word_where_nobody_reads_on(arguments: str, unbuffered: bool) -> None:
    done = unread(sys.executable, "-m", *arguments.split(), folder=ROOT, unbuffered=unbuffered)
    assert done.stderr == ""
    # the argparse of some Pythons takes no notice of what it cannot print at once
    assert done.returncode in {128 + signal.SIGPIPE, 0 if unbuffered else 128 + signal.SIGPIPE}


def test_help_imports_nothing_large(tmp_path: Path) -> None:
    code = """
for arguments in ([], ["check"], ["embed"], ["search"], ["export"], ["lr-range"]):
    sys.argv = ["simclr", *arguments, "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0
print([name for name in ("numpy", "torch", "PIL", "matplotlib", "dvc", "hydra") if name in sys.modules])
"""
    assert simclr(code, tmp_path) == "[]"


def test_embed_and_search_import_neither_dvc_nor_ffcv(here: Path) -> None:
    pictures(here / "x", ["1.png"])
    code = f"""
sys.argv = ["simclr", "embed", "x", *{ENCODER}]
main()
sys.argv = ["simclr", "search", "x", "x/1.png", *{ENCODER}, "--features", "x.npy"]
main()
print([name for name in ("dvc", "ffcv", "cv2", "numba", "hydra", "sklearn") if name in sys.modules])
"""
    assert simclr(code, here) == "[]"


def test_the_script_and_every_subcommand_is_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"simclr": f"{command.__name__}:main"}
    for module, _ in command.SUBCOMMANDS.values():
        assert callable(import_module(module).main)


@pytest.mark.parametrize("subcommand", command.SUBCOMMANDS)
def test_help_lists_the_subcommands(
    subcommand: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simclr", "--help"])
    with pytest.raises(SystemExit):
        command.main()
    assert f"\n  {subcommand} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required: SUBCOMMAND"),
        (["nothing"], 2, "invalid choice: 'nothing'"),
        (["lr-range", "--steps", "many"], 2, "argument --steps: invalid int value: 'many'"),
        (["presets", "show", "none"], 1, "presets: error: "),
        (["embed"], 2, "the following arguments are required: FOLDER"),
    ],
)
def test_arguments_reach_the_subcommand(
    arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["simclr", *arguments])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == code
    assert message in capsys.readouterr().err


def test_presets_are_those_of_their_own_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simclr", "presets"])
    command.main()
    assert capsys.readouterr().out.startswith("cifar10 ")


def test_report_runs_the_script_of_the_repository(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "simclr", "report", "no-such-revision", "--output", str(tmp_path / "page.html")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("report-page: there is no experiment, branch or commit no-such-revision; ")
    assert done.stderr.count("\n") == 1


def test_report_without_the_repository_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "_SCRIPT", tmp_path / "report-page")
    with pytest.raises(UserError, match="report-page: is not there; the page is made in a clone of the repository"):
        report.main()


@pytest.mark.parametrize("subcommand", ["embed", "search", "list"])
def test_an_empty_folder_s_name_is_not_the_working_directory(
    subcommand: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simclr", subcommand, "", *["query.png"] * (subcommand == "search")])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert "argument FOLDER: it is empty; name a folder" in capsys.readouterr().err
