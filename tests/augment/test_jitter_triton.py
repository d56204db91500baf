"""The kernel for GPUs where there is none: interpreted, and compiled for some of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from simclr.augment import Draws, _jitter_batched
from tests.helpers.augmentations import augmentation, pictures

triton = pytest.importorskip("triton")
NAMES = ("factors", "lumas", "contrasts", "hues")
INTERPRETED = """
import sys, torch
from simclr.augment import _jitter_triton
torch.save([_jitter_triton.jitter(*case) for case in torch.load(sys.argv[1])], sys.argv[2])
"""


def test_interpreted_it_does_what_the_operations_of_torch_do(tmp_path: Path) -> None:
    cases = []
    for without in ("probability", "hue", "contrast", "brightness"):
        option = augmentation("jitter", **{without: 0.0})
        values = option.module.draw(option.parameters, Draws("jitter", 0, 0, np.arange(12), 1), 36)
        values = option.module.prepared({name: array[:, 0] for name, array in values.items()}, option.parameters)
        coefficients = [torch.from_numpy(values[name]) if name in values else None for name in NAMES]
        cases.append((pictures(12, 36), *coefficients))  # more pixels than a block has
    torch.save(cases, tmp_path / "cases")
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(tmp_path / "cases"), str(tmp_path / "found")],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    for case, found in zip(cases, torch.load(tmp_path / "found"), strict=True):
        torch.testing.assert_close(found, _jitter_batched.step_by_step(*case), atol=5e-6, rtol=0)


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from simclr.augment import _jitter_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"slots": 6, "before": 3, "hue": True, "block": _jitter_triton._BLOCK}
    signature = dict.fromkeys(("images", "factors", "lumas", "hues", "out"), "*fp32")
    signature |= dict.fromkeys(("contrasts",), "*u8") | {"pixels": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(_jitter_triton._jitter, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert "ld.local" not in compiled.asm["ptx"]  # all that a program has of its view is in registers
