"""The kernels for GPUs where there is none: interpreted, and compiled for some of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
INTERPRETED = """
import sys, torch
from simclr.distributed import _softmax_triton as kernels
similarities, anchors, keys = torch.load(sys.argv[1])
torch.save([kernels.sums_of_exp(similarities), kernels.multiply_exp_(similarities, anchors, keys)], sys.argv[2])
"""


@pytest.mark.parametrize("width", [7, 2048, 5000])
def test_interpreted_they_do_what_the_operations_of_torch_do(width: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    similarities = 10 * torch.randn(3, width, generator=generator)
    similarities[1, 2] = -torch.inf  # as of an anchor and itself
    anchors, keys = torch.rand(3, 2, generator=generator)[:, 1], torch.rand(width, generator=generator)
    torch.save((similarities, anchors, keys), tmp_path / "case")
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(tmp_path / "case"), str(tmp_path / "found")],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    sums, multiplied = torch.load(tmp_path / "found")
    torch.testing.assert_close(sums, similarities.exp().sum(dim=1))
    torch.testing.assert_close(multiplied, similarities.exp() * (anchors[:, None] + keys))
    assert multiplied[1, 2] == 0


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["_sum_rows", "_multiply"])
def test_they_compile(name: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from simclr.distributed import _softmax_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(_softmax_triton, name)
    signature = dict.fromkeys(kernel.arg_names, "*fp32") | {"width": "i32", "block": "constexpr"}
    compiled = triton.compile(
        ASTSource(kernel, signature, {"block": _softmax_triton._MULTIPLIED}), target=GPUTarget("cuda", capability, 32)
    )
    assert "ld.local" not in compiled.asm["ptx"]  # all that a program holds is in registers
