"""`simclr export`: the images that it prepares against Pillow's, and its file of ONNX in onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import simclr
from simclr.commands import export
from simclr.commands.image_encoder import ImageEncoder
from simclr.features import encoder_file
from simclr.features.eval_transform import EvalTransform
from simclr.models import resnet, vit
from tests.commands.folders import ENCODER, Run

SIZES = [(12, 12), (8, 8), (1, 1), (96, 96), (97, 97), (17, 30), (40, 41), (9, 200), (3, 12)]
"""Height and width; none is upright."""
UPRIGHT = [(30, 17), (41, 40), (200, 9), (12, 3), (86, 56), (14, 10)]


def noise(height: int, width: int) -> Any:
    """An image (H, W, 3) uint8, with every level."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def batch(*images: Any) -> Any:
    """(N, 3, H, W) uint8."""
    return np.stack(images).transpose(0, 3, 1, 2)


def transform(size: int, share: float) -> EvalTransform:
    return EvalTransform(size, share, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.2])


@pytest.mark.parametrize(("size", "share"), [(12, 1.0), (12, 0.875), (32, 0.875), (64, 1.0)])
def test_images_are_prepared_as_pillow_does(size: int, share: float) -> None:
    encoder = resnet.Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    network = ImageEncoder(encoder, transform(size, share))
    levels = EvalTransform(size, share, mean=[0.0] * 3, std=[1 / 255] * 3)
    for height, width in SIZES + UPRIGHT:
        image = noise(height, width)
        made, right = network.resized(torch.from_numpy(batch(image)))[0], levels(Image.fromarray(image)).round()
        assert made.dtype == torch.float32
        if (height, width) in SIZES:
            assert torch.equal(made, right), (height, width)
        else:
            assert (made - right).abs().max() <= 1


def test_an_image_is_prepared_alone() -> None:
    encoder = resnet.Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    network, images = (
        ImageEncoder(encoder, transform(12, 0.875)),
        [noise(17, 30), noise(17, 30)[::-1], noise(17, 30) // 2],
    )
    together = network.resized(torch.from_numpy(batch(*images)))
    assert torch.equal(together, torch.cat([network.resized(torch.from_numpy(batch(image))) for image in images]))


def session(path: str) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(params=["resnet", "vit"])
def exported(request: pytest.FixtureRequest, run: Run) -> str:
    """The name of a file that the command wrote, and of an encoder beside it."""
    for package in export.PACKAGES:
        pytest.importorskip(package)
    if request.param == "vit":
        torch.manual_seed(0)
        encoder = vit.Encoder(image_size=12, patch_size=4, layers=2, heads=2, width=64)
        encoder_file.save(Path("encoder.safetensors"), encoder, transform(12, 0.875))
    said = run("export", "new/x.onnx", *ENCODER)
    assert said == "export: new/x.onnx: images (N, 3, H, W) uint8 to h (N, 64) float32\n"
    return "new/x.onnx"


def test_onnxruntime_gives_the_representations_of_the_encoder(exported: str) -> None:
    network, (encoder, prepare) = session(exported), simclr.load_encoder("encoder.safetensors")
    [images], [h] = network.get_inputs(), network.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 3, "H", "W"])
    assert (h.name, h.type, h.shape) == ("h", "tensor(float)", ["N", 64])
    for height, width in SIZES:
        image = noise(height, width)
        [made] = network.run(None, {"images": batch(image, image[:, ::-1], image // 2)})
        shown = [prepare(Image.fromarray(np.ascontiguousarray(each))) for each in (image, image[:, ::-1], image // 2)]
        right = encoder(torch.stack(shown)).numpy()
        assert made.dtype == np.float32
        assert np.abs(right).max() > 0.1
        np.testing.assert_allclose(made, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exported", ["resnet"], indirect=True)
def test_the_file_is_the_same_again_and_tells_nothing_of_the_machine(exported: str, run: Run) -> None:
    run("export", "again.onnx", *ENCODER)
    content = Path("again.onnx").read_bytes()
    assert content == Path(exported).read_bytes()
    assert b".py" not in content
    assert str(Path(simclr.__file__).parent).encode() not in content


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = run.error("export", "x.pt", *ENCODER)
    assert wrong == "FILE.onnx x.pt is not allowed; it takes the name of a file that ends in .onnx"
    monkeypatch.setattr(export, "PACKAGES", ("json",))
    assert run.error("export", "x.onnx", "--encoder", "none").startswith("none: cannot be read")
    monkeypatch.setattr(export, "PACKAGES", ("json", "missing_one", "missing_two"))
    error = run.error("export", "x.onnx", *ENCODER)
    assert error == "needs packages that are not installed: pip install missing_one missing_two"
