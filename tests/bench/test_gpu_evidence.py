"""What `make gpu-evidence` does, rehearsed on a CPU."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_evidence
from benchmarks.gpu_evidence import PARTS, Found, Scale, section
from ruamel.yaml import YAML

from simclr.core.errors import UserError
from tests.helpers.programs import ROOT

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["machine", "tests", "loss", "views", "step-32", "step-224", "options", "presets"])
def test_a_part_prints_its_figures(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PARTS[name].show(Scale(CPU, tmp_path, None))
    printed = capsys.readouterr().out
    expected = {
        "machine": f"torch {torch.__version__}", "loss": "| 64 | dense | ", "views": "| 16 of 224 px | ",
        "step-32": "ms a step of 8 samples", "options": "| pretrain.online_probe.lr=0.1 | ",
        "tests": "There is no GPU for them: ", "step-224": "aten::max_pool2d_with_indices_backward",
        "presets": "| cifar10_100_epochs | ",
    }  # fmt: skip
    assert expected[name] in printed


def test_what_a_stage_reads_is_written_by_one_before_it() -> None:
    stages = YAML(typ="safe", pure=True).load(gpu_evidence.ROOT / "dvc.yaml")["stages"]
    written: set[str] = set()
    for name in gpu_evidence._STAGES:
        read = {path for path in stages[name]["deps"] if path.split("/")[0] in ("data", "models", "reports")}
        assert read <= written, name
        for kind in ("outs", "metrics"):
            written |= {path if isinstance(path, str) else next(iter(path)) for path in stages[name].get(kind, [])}


def test_the_folder_source_works_where_dvc_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_evidence._stand_in_for_dvc(tmp_path) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [folder] = gpu_evidence._stand_in_for_dvc(tmp_path)
    code = "from simclr.sources.folder import DiskTree, Path; DiskTree(Path('x')).admit('', ['a'], ['b'])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(gpu_evidence.ROOT / "src"), folder])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_what_fails_or_hangs_costs_itself_alone() -> None:
    print_half = "import sys, time; print('half', flush=True); "
    failed, whole = section("A", [sys.executable, "-c", print_half + "sys.exit('no room')"], 60, os.environ)
    assert not whole
    assert failed.startswith("\n## A\n\n")
    assert "ended with 1" in failed
    assert "\nhalf\n" in failed
    assert "no room" in failed
    began = time.monotonic()
    hung, whole = section("B", [sys.executable, "-c", print_half + "time.sleep(600)"], 3, os.environ)
    assert not whole
    assert time.monotonic() - began < 60
    assert "stopped there" in hung
    assert "\nhalf\n" in hung
    assert section("C", [], -1, {}) == ("\n## C\n\nNo time was left for it.\n", False)
    text, whole = section("D", [sys.executable, "-c", "print('whole')"], 60, {})
    assert text.endswith(" s\n\nwhole\n")
    assert whole


def test_the_command_names_the_parts_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_evidence", "--only", "machine", "loss", "views"])
    monkeypatch.setattr(
        gpu_evidence, "gather", lambda names, *_: [Found(f"{name}\n", name == "loss") for name in names]
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"of 3 parts, these did not come to their end: machine, views$"):
        gpu_evidence.main()
    assert capsys.readouterr().out.endswith("machine\n\nloss\n\nviews\n\n")


def test_a_folder_without_images_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_evidence", "--images", str(tmp_path)])
    for split in ("train", "val"):
        with pytest.raises(UserError, match=rf"{split}: no class folder is in it; --images takes a folder with train/"):
            gpu_evidence.main()
        (tmp_path / split / "cat").mkdir(parents=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_part_ends_with_the_command(number: signal.Signals, tmp_path: Path) -> None:
    part = (
        "import os, sys, tempfile, time; made = tempfile.mkdtemp(); "
        "open(sys.argv[1], 'w').write(f'{os.getpid()} {made}'); time.sleep(60)"
    )
    program = (
        "import sys; from unittest import mock; from benchmarks import gpu_evidence\n"
        f"command = [sys.executable, '-c', {part!r}, sys.argv[1]]\n"
        "section = gpu_evidence.section\n"
        "with mock.patch.object(gpu_evidence, 'section', lambda *_: section('x', command, 60, {})):\n"
        "    sys.argv = ['gpu_evidence', '--only', 'machine']\n"
        "    gpu_evidence.main()\n"
    )
    said = tmp_path / "pid"
    command = subprocess.Popen([sys.executable, "-c", program, str(said)], cwd=ROOT, stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while not said.exists() or not said.read_text():
        assert command.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.1)
    command.send_signal(number)
    assert command.wait(60) == 128 + number
    number_of_part, made = said.read_text().split()
    assert not Path("/proc", number_of_part).exists()
    assert not Path(made).exists()


def test_every_finding_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def found(title: str, command: list[str], seconds: float, environment: dict[str, str]) -> Found:
        commands.append(command[1:])
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        return Found(f"{title}\n", whole=True)

    monkeypatch.setattr(gpu_evidence, "section", found)
    output = tmp_path / "gpu.md"
    written = []
    for _ in gpu_evidence.gather(["tests", "views"], tmp_path, CPU, 60, output):
        written.append(output.read_text())
    assert written == ["Tests that need a GPU\n", "Tests that need a GPU\nViews alone\n"]
    assert commands[1] == ["-m", "benchmarks.gpu_evidence", "--part", "views", "--images", str(tmp_path)]


@pytest.mark.parametrize(
    ("program", "name"),
    [("echo NVIDIA H100; echo NVIDIA H100", "NVIDIA H100"), ("echo failed; exit 9", "A GPU"), (None, "A GPU")],
)
def test_a_gpu_is_named_by_its_driver(
    program: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or not at all, as in a container without nvidia-smi."""
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_evidence._gpu() == name
