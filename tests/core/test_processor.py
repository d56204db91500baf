"""That every library is held to the same instructions before it is loaded, and what the environment may ask for."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simclr.core import processor

ROOT = Path(__file__).parents[2]
AVX2 = "processor\t: 0\nflags\t\t: fpu avx fma avx2 avx512f\nbugs\t\t: spectre\n"
ASKED = """
import numba, numpy, threadpoolctl, torch
from numpy._core._multiarray_umath import __cpu_features__ as found
print(torch.backends.cpu.get_cpu_capability(), found["X86_V4"], numba.config.CPU_NAME)
print(*sorted({pool["architecture"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"}))
print(*sorted({pool["num_threads"] for pool in threadpoolctl.threadpool_info()}))
"""


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`code` in a fresh interpreter that knows nothing of what this one was told."""
    told = {*processor.HELD, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    clean = {name: value for name, value in os.environ.items() if name not in told}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /proc/cpuinfo."""
    path = tmp_path / "cpuinfo"
    path.write_text(AVX2)
    monkeypatch.setattr(processor, "_CPUINFO", path)
    for name in ("SIMCLR_CPU", "SIMCLR_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return path


def test_libraries_that_are_loaded_afterwards_are_held_and_have_one_thread() -> None:
    if processor.mode() != "held":
        pytest.skip("no AVX2 here")
    ended = python("import simclr" + ASKED, OMP_NUM_THREADS="7", OPENBLAS_CORETYPE="Prescott")
    assert ended.stdout.splitlines() == ["AVX2 False haswell", "Haswell", "1"], ended
    assert not ended.stderr


def test_products_convolutions_and_decompositions_are_held() -> None:
    """By what the libraries themselves say: oneDNN and MKL when they compute, OpenBLAS of its threads."""
    if processor.mode() != "held":
        pytest.skip("no AVX2 here")
    code = (
        "import simclr, numpy, scipy.linalg, threadpoolctl, torch\n"
        "torch.mm(torch.ones(64, 64), torch.ones(64, 64))\n"
        "torch.conv2d(torch.ones(2, 16, 8, 8), torch.ones(16, 16, 3, 3))\n"
        "pools = threadpoolctl.threadpool_info()\n"
        "print('openblas', *{pool['num_threads'] for pool in pools if pool['internal_api'] == 'openblas'})"
    )
    said = python(code, ONEDNN_VERBOSE="1", MKL_VERBOSE="1", SIMCLR_THREADS="3").stdout
    assert "onednn_verbose,v1,info,cpu,isa:Intel AVX2\n" in said
    assert set(re.findall(r"CNR:(\S+)", said)) == {"COMPATIBLE"}
    assert said.endswith("openblas 1\n")


def test_native_leaves_them_alone_and_threads_are_asked_for_by_a_name_of_ours() -> None:
    ended = python("import simclr, os; print(os.environ.get('MKL_CBWR'), os.environ['OMP_NUM_THREADS'])",
                   SIMCLR_CPU="native", SIMCLR_THREADS="3", OMP_NUM_THREADS="7")  # fmt: skip
    assert ended.stdout.split() == ["None", "3"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NPY_DISABLE_CPU_FEATURES", "AVX512F"), ("FREETYPE_PROPERTIES", "truetype:interpreter-version=35")],
)
def test_a_variable_that_would_change_or_stop_libraries_goes(name: str, value: str) -> None:
    ended = python(f"import simclr, numpy, os; print(os.environ.get('{name}'))", **{name: value})
    assert (ended.stdout, ended.stderr) == ("None\n", "")


def test_what_was_loaded_before_is_told_in_one_line() -> None:
    if processor.mode() != "held":
        pytest.skip("no AVX2 here")
    ended = python("import numpy; import simclr")
    assert "numpy was loaded before simclr" in ended.stderr
    assert "SIMCLR_CPU=native" in ended.stderr
    assert not python("import numpy; import simclr", **processor.HELD).stderr
    assert not python("import numpy; import simclr", SIMCLR_CPU="native").stderr


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_a_stage_loads_nothing_before_simclr(stage: Path) -> None:
    for node in ast.parse(stage.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.partition(".")[0]
            assert top == "simclr" or top in sys.stdlib_module_names, name


def test_a_processor_without_avx2_or_fma_is_native(shown: Path) -> None:
    assert processor.mode() == "held"
    for missing in ("avx2", "fma"):
        shown.write_text(AVX2.replace(f" {missing} ", " "))
        assert processor.mode() == "native"
    shown.unlink()
    assert processor.mode() == "native"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("SIMCLR_CPU", "avx512", "one of held, native"),
        ("SIMCLR_CPU", "", "one of held, native"),
        ("SIMCLR_THREADS", "0", "an integer from 1 to 1024"),
        ("SIMCLR_THREADS", "2147483648", "an integer from 1 to 1024"),
        ("SIMCLR_THREADS", "2,1", "an integer from 1 to 1024"),
        ("SIMCLR_THREADS", "", "an integer from 1 to 1024"),
    ],
)
def test_another_value_is_refused(
    name: str, value: str, allowed: str, shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processor.environment_error() == ""
    monkeypatch.setenv(name, value)
    assert processor.environment_error() == f"environment: {name} = {value} is not allowed; it takes {allowed}"
    assert (processor.mode(), processor.threads()) == ("held", 1)
