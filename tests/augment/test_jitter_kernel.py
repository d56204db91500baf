"""The kernel for GPUs where there is none: interpreted, and compiled for some of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from simclr.augment import color, views
from simclr.augment.views import ViewParams
from tests.augment.test_kernels import GPU, PARAMETERS, images, rows

triton = pytest.importorskip("triton")
NAMES = ("factors", "lumas", "contrasts", "hues", "gray")
INTERPRETED = """
import sys, torch
from simclr.augment import jitter_kernel
torch.save([jitter_kernel.jittered(*case) for case in torch.load(sys.argv[1])], sys.argv[2])
"""


def test_interpreted_it_does_what_the_operations_of_torch_do(tmp_path: Path) -> None:
    cases = []
    for without in ("", "jitter", "hue", "contrast", "grayscale"):
        parameters = ViewParams(**{**PARAMETERS.__dict__, "resolution": 36, **({without: 0.0} if without else {})})
        whole = np.full(6, 36)
        given = rows(views.draw(parameters, whole, whole, 0, 0, np.arange(6)), parameters, GPU)
        cases.append((images(12, 36), *(given.get(name) for name in NAMES)))  # more pixels than a block has
    torch.save(cases, tmp_path / "cases")
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(tmp_path / "cases"), str(tmp_path / "found")],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    for case, found in zip(cases, torch.load(tmp_path / "found"), strict=True):
        torch.testing.assert_close(found, color.step_by_step(*case), atol=5e-6, rtol=0)


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from simclr.augment import jitter_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"slots": 6, "before": 3, "hue": True, "grays": True, "block": jitter_kernel._BLOCK}
    signature = dict.fromkeys(("images", "factors", "lumas", "hues", "out"), "*fp32")
    signature |= dict.fromkeys(("contrasts", "gray"), "*u8") | {"pixels": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(jitter_kernel._jitter, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert "ld.local" not in compiled.asm["ptx"]  # all that a program has of its view is in registers
