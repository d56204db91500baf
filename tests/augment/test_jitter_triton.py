"""The kernel for GPUs where there is none: interpreted, and compiled for some of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from simclr.augment import Draws, _jitter_batched
from tests.helpers.augmentations import augmentation, pictures
from tests.helpers.triton_kernels import CAPABILITIES, assembly, interpreted

pytest.importorskip("triton")
NAMES = ("factors", "lumas", "contrasts", "hues")
INTERPRETED = """
from simclr.augment import _jitter_triton
found = [_jitter_triton.jitter(*case) for case in given]
"""


def test_interpreted_it_does_what_the_operations_of_torch_do(tmp_path: Path) -> None:
    cases = []
    for without in ("probability", "hue", "contrast", "brightness"):
        option = augmentation("jitter", **{without: 0.0})
        values = option.module.draw(option.parameters, Draws("jitter", 0, 0, np.arange(12), 1), 36)
        values = option.module.prepared({name: array[:, 0] for name, array in values.items()}, option.parameters)
        coefficients = [torch.from_numpy(values[name]) if name in values else None for name in NAMES]
        cases.append((pictures(12, 36), *coefficients))  # more pixels than a block has
    for case, found in zip(cases, interpreted(INTERPRETED, cases, tmp_path), strict=True):
        torch.testing.assert_close(found, _jitter_batched.step_by_step(*case), atol=5e-6, rtol=0)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_it_compiles(capability: int, tmp_path: Path) -> None:
    from simclr.augment import _jitter_triton

    constants = {"slots": 6, "before": 3, "hue": True, "block": _jitter_triton._BLOCK}
    signature = dict.fromkeys(("images", "factors", "lumas", "hues", "out"), "*fp32")
    signature |= {"contrasts": "*u8", "pixels": "i32"}
    ptx = assembly(_jitter_triton._jitter, signature, constants, capability, tmp_path)
    assert "ld.local" not in ptx  # all that a program has of its view is in registers
