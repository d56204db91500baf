"""What `make gpu-evidence` does, rehearsed on a CPU."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_evidence
from benchmarks.gpu_evidence import PARTS, Scale, section

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["machine", "loss", "views", "step-32", "options"])
def test_a_part_prints_its_figures(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PARTS[name].show(Scale(CPU, tmp_path, None))
    printed = capsys.readouterr().out
    expected = {
        "machine": f"torch {torch.__version__}", "loss": "| 64 | dense | ", "views": "| 16 of 224 px | ",
        "step-32": "ms a step of 8 samples", "options": "| pretrain.online_probe.lr=0.1 | ",
    }  # fmt: skip
    assert expected[name] in printed


def test_the_folder_source_works_where_dvc_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_evidence._stand_in_for_dvc(tmp_path) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [folder] = gpu_evidence._stand_in_for_dvc(tmp_path)
    code = "from simclr.sources.folder import DiskTree, Path; DiskTree(Path('x')).admit('', ['a'], ['b'])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(gpu_evidence.ROOT / "src"), folder])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_what_fails_or_hangs_costs_itself_alone() -> None:
    print_half = "import sys, time; print('half', flush=True); "
    failed = section("A", [sys.executable, "-c", print_half + "sys.exit('no room')"], 60, os.environ)
    assert failed.startswith("\n## A\n\n")
    assert "ended with 1" in failed
    assert "\nhalf\n" in failed
    assert "no room" in failed
    began = time.monotonic()
    hung = section("B", [sys.executable, "-c", print_half + "time.sleep(600)"], 3, os.environ)
    assert time.monotonic() - began < 60
    assert "stopped there" in hung
    assert "\nhalf\n" in hung
    assert "No time was left" in section("C", [], -1, {})
    assert section("D", [sys.executable, "-c", "print('whole')"], 60, {}).endswith(" s\n\nwhole\n")


def test_every_finding_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def found(title: str, command: list[str], seconds: float, environment: dict[str, str]) -> str:
        commands.append(command[1:])
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        return f"{title}\n"

    monkeypatch.setattr(gpu_evidence, "section", found)
    output = tmp_path / "gpu.md"
    written = []
    for _ in gpu_evidence.gather(["tests", "views"], tmp_path, CPU, 60, output):
        written.append(output.read_text())
    assert written == ["Tests that need a GPU\n", "Tests that need a GPU\nViews alone\n"]
    assert commands[1] == ["-m", "benchmarks.gpu_evidence", "--part", "views", "--images", str(tmp_path)]
