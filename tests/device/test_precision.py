from collections.abc import Iterator

import pytest
import torch

from simclr.device import precision

CPU = torch.device("cpu")


@pytest.fixture
def loose() -> Iterator[None]:
    """TF32 allowed by the process, as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("loose")
def test_products_are_full_inside_and_as_before_outside() -> None:
    matmul = torch.backends.cuda.matmul
    assert matmul.fp32_precision == "tf32"
    with precision.full(CPU):
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"
    assert torch.get_float32_matmul_precision() == "high"  # torch finds its two ways to ask for it in agreement


def test_autocast_has_no_say() -> None:
    a = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with precision.full(CPU):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.parametrize(("capability", "expected"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_before_ampere_have_no_bf16(
    capability: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", {torch.device("cuda", 1): capability}.get)
    assert precision.has_bf16(torch.device("cuda", 1)) is expected
    assert not precision.has_bf16(CPU)
