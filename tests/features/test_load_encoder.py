"""An encoder as its users load it."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file

import simclr
from simclr.core.errors import UserError
from simclr.features import encode, encoder_file
from simclr.features.encoder_file import freeze
from simclr.features.eval_transform import EvalTransform
from simclr.models import resnet
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE

TRANSFORM = EvalTransform(size=8, crop_share=0.875, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.2])


def saved(path: Path, name: str = "resnet10", width: float = 0.125, small_stem: bool = True) -> resnet.Encoder:
    torch.manual_seed(0)
    encoder = resnet.Encoder(name, width, small_stem, zero_init_residual=False)
    for buffer in encoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    encoder_file.save(path, encoder, TRANSFORM)
    return freeze(encoder)  # type: ignore[return-value]


@pytest.mark.parametrize("side", [8, 13, 40])
def test_an_image_is_prepared_as_in_the_evaluation(side: int, tmp_path: Path) -> None:
    saved(tmp_path / "encoder.safetensors")
    encoder, prepare = simclr.load_encoder(str(tmp_path / "encoder.safetensors"))
    images = noise(5, side, seed=1)
    file = stored(tmp_path / "x.beton", images, np.zeros(5, np.int64))
    h = encode.representations(encoder, file, np.arange(5), prepare, 5, ALONE)
    inputs = torch.stack([prepare(Image.fromarray(image)) for image in images])
    assert inputs.shape == (5, 3, 8, 8)
    torch.testing.assert_close(encoder(inputs), h, rtol=0.02, atol=0.02)  # Pillow rounds the resized pixels


def test_other_modes_and_shapes_of_images(tmp_path: Path) -> None:
    saved(tmp_path / "encoder.safetensors")
    _, prepare = simclr.load_encoder(tmp_path / "encoder.safetensors")
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        assert prepare(Image.new("RGB", (30, 17), (200, 10, 90)).convert(mode)).shape == (3, 8, 8)
    assert prepare(Image.new("RGB", (1, 50))).isfinite().all()


def test_an_image_is_taken_as_fetch_takes_it(tmp_path: Path) -> None:
    saved(tmp_path / "encoder.safetensors")
    _, prepare = simclr.load_encoder(tmp_path / "encoder.safetensors")
    ramp = np.linspace(0, 65535, 12 * 12).reshape(12, 12)
    upright = Image.fromarray((ramp / 65535 * 255).round().astype(np.uint8)).convert("RGB")
    lies, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lies.save(tmp_path / "lies.png", exif=exif)
    clear = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
    white = Image.new("RGB", (12, 12), "white")
    cases = [(Image.open(tmp_path / "lies.png"), upright), (Image.fromarray(ramp.astype(np.uint16)), upright)]
    for image, expected in [*cases, (clear, white)]:
        torch.testing.assert_close(prepare(image), prepare(expected), rtol=0, atol=0.02)


@pytest.mark.parametrize("small_stem", [True, False])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize(
    "library",
    [
        "torchvision.models",
        pytest.param(
            "timm.models",
            marks=pytest.mark.skipif(find_spec("timm") is None, reason="timm, no dependency, is not installed"),
        ),
    ],
)
def test_it_loads_into_other_libraries(library: str, name: str, small_stem: bool, tmp_path: Path) -> None:
    encoder = saved(tmp_path / "encoder.safetensors", name, 1.0, small_stem)
    theirs = getattr(import_module(library), name)()
    theirs.fc = torch.nn.Identity()
    if small_stem:
        theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.maxpool = torch.nn.Identity()
    theirs.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(theirs.eval()(images), encoder(images))


def test_a_user_imports_neither_dvc_nor_ffcv(tmp_path: Path) -> None:
    saved(tmp_path / "encoder.safetensors")
    code = f"""
import sys, simclr, torch
encoder, prepare = simclr.load_encoder({str(tmp_path / "encoder.safetensors")!r})
assert encoder(torch.zeros(1, 3, 8, 8)).shape == (1, encoder.dimension)
assert not encoder.training
print([name for name in ("dvc", "ffcv", "numba", "hydra", "matplotlib", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        simclr.load_encoder(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no encoder")
    with pytest.raises(UserError, match="damaged, or not an encoder"):
        simclr.load_encoder(tmp_path / "text")
    from safetensors.torch import save_file

    for model in ("cnn", "../resnet", "", None, 3):
        description = {"model": model, "architecture": {}, "transform": {}}
        save_file({"x": torch.zeros(1)}, tmp_path / "other", {"encoder": json.dumps(description)})
        with pytest.raises(UserError, match=r"its model is .* which is not here; there are: resnet, vit"):
            simclr.load_encoder(tmp_path / "other")
