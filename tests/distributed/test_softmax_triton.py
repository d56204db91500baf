"""The kernels for GPUs where there is none: interpreted, and compiled for some of them."""

from pathlib import Path

import pytest
import torch

from tests.helpers.triton_kernels import CAPABILITIES, assembly, interpreted

pytest.importorskip("triton")
INTERPRETED = """
from simclr.distributed import _softmax_triton as kernels
similarities, anchors, keys = given
found = [kernels.sums_of_exp(similarities), kernels.multiply_exp_(similarities, anchors, keys)]
"""


@pytest.mark.parametrize("width", [7, 2048, 5000])
def test_interpreted_they_do_what_the_operations_of_torch_do(width: int, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    similarities = 10 * torch.randn(3, width, generator=generator)
    similarities[1, 2] = -torch.inf  # as of an anchor and itself
    anchors, keys = torch.rand(3, 2, generator=generator)[:, 1], torch.rand(width, generator=generator)
    sums, multiplied = interpreted(INTERPRETED, (similarities, anchors, keys), tmp_path)
    torch.testing.assert_close(sums, similarities.exp().sum(dim=1))
    torch.testing.assert_close(multiplied, similarities.exp() * (anchors[:, None] + keys))
    assert multiplied[1, 2] == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", ["_sum_rows", "_multiply"])
def test_they_compile(name: str, capability: int, tmp_path: Path) -> None:
    from simclr.distributed import _softmax_triton

    kernel = getattr(_softmax_triton, name)
    signature = dict.fromkeys(kernel.arg_names, "*fp32") | {"width": "i32"}
    ptx = assembly(kernel, signature, {"block": _softmax_triton._MULTIPLIED}, capability, tmp_path)
    assert "ld.local" not in ptx  # all that a program holds is in registers
