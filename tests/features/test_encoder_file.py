"""An encoder's file, whole and damaged, and how images are shown to it."""

import json
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from simclr.core.errors import UserError
from simclr.features import encoder_file
from simclr.features.eval_transform import EvalTransform
from simclr.models.resnet import Encoder

TRANSFORM = EvalTransform(size=8, crop_share=0.875, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])


def tiny(seed: int = 0) -> Encoder:
    """A small encoder none of whose numbers is left as it was initialised."""
    torch.manual_seed(seed)
    network = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=True)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.fill_(7)
    return network


def test_images_are_normalised_per_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    expected = images.clone()
    for channel in range(3):
        expected[:, channel] = (images[:, channel] - TRANSFORM.mean[channel]) / TRANSFORM.std[channel]
    torch.testing.assert_close(TRANSFORM.normalise(images), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_is_saved_is_loaded(tmp_path: Path, memory_format: torch.memory_format) -> None:
    network = tiny().to(memory_format=memory_format)
    encoder_file.save(tmp_path / "new" / "encoder.safetensors", network, TRANSFORM)
    loaded, transform = encoder_file.load(tmp_path / "new" / "encoder.safetensors", "resnet")
    assert transform == TRANSFORM
    assert loaded.architecture == network.architecture
    assert list(loaded.state_dict()) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not any(module.training for module in loaded.modules())
    assert not any(weight.requires_grad for weight in loaded.parameters())
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(images), network.eval()(images).detach())


def test_equal_encoders_give_equal_files(tmp_path: Path) -> None:
    first, second, other = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "other"))
    encoder_file.save(first, tiny(), TRANSFORM)
    encoder_file.save(second, tiny().to(memory_format=torch.channels_last), TRANSFORM)
    encoder_file.save(other, tiny(seed=1), TRANSFORM)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_the_file_is_for_everybody_whom_the_umask_lets_in(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        encoder_file.save(tmp_path / "encoder.safetensors", tiny(), TRANSFORM)
    finally:
        os.umask(before)
    assert (tmp_path / "encoder.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_text("old")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"encoder\.safetensors: cannot be written"):
            encoder_file.save(path, tiny(), TRANSFORM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def described(path: Path, tensors: dict[str, Tensor], **changes: object) -> None:
    """An encoder's file with a description of the caller's choice."""
    description = {
        "model": "resnet",
        "architecture": {"name": "resnet10", "width": 0.125, "small_stem": True, "zero_init_residual": True},
        "transform": {"size": 8, "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    save_file(tensors, path, metadata={"encoder": json.dumps(description | changes)})


def transformed(path: Path, **changes: object) -> None:
    transform = {"size": 8, "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    described(path, tiny().state_dict(), transform=transform | changes)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("no encoder at all, but text of a certain length"),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "cut in the weights": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "header overwritten": lambda path: path.write_bytes(path.read_bytes()[:20] + b"\xff" * 20 + path.read_bytes()[40:]),
    "without description": lambda path: save_file({"conv1.weight": torch.zeros(2)}, path),
    "foreign description": lambda path: save_file({"w": torch.zeros(2)}, path, metadata={"format": "pt"}),
    "unreadable description": lambda path: save_file({"w": torch.zeros(2)}, path, metadata={"encoder": "{"}),
    "description of another kind": lambda path: save_file({"w": torch.zeros(2)}, path, metadata={"encoder": "[1]"}),
    "a weight lacks": lambda path: described(path, {**tiny().state_dict(), "bn1.bias": torch.zeros(9)}),
    "complex weights": lambda path: described(path, {**tiny().state_dict(), "bn1.bias": torch.zeros(8) * 1j}),
    "no weights": lambda path: described(path, {"w": torch.zeros(2)}),
    "unknown architecture": lambda path: described(path, tiny().state_dict(), architecture={"name": "vgg"}),
    "unknown transform": lambda path: described(path, tiny().state_dict(), transform={"side": 8}),
    **{
        f"{name} {value} in the transform": partial(transformed, **{name: value})
        for name, value in (
            ("size", "a"),
            ("size", 0),
            ("size", 10**9),
            ("size", 8.0),
            ("size", True),
            ("crop_share", -1),
            ("crop_share", "b"),
            ("crop_share", 1.5),
            ("mean", "x"),
            ("mean", [0.5] * 4),
            ("mean", ["0.5"] * 3),
            ("mean", [1e300] * 3),
            ("std", None),
            ("std", [0.5, 0, 0.5]),
            ("std", [0.5, float("nan"), 0.5]),
            ("std", [1e-60] * 3),
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder_file.save(path, tiny(), TRANSFORM)
    encoder_file.load(path, "resnet")
    damage(path)
    with pytest.raises(UserError) as caught:
        encoder_file.load(path, "resnet")
    assert str(caught.value) == f"{path}: damaged, or not an encoder that the pretrain stage wrote"


@pytest.mark.parametrize("written", ["vit", "os"])
def test_an_encoder_of_another_model_is_refused(written: str, tmp_path: Path) -> None:
    described(tmp_path / "encoder.safetensors", tiny().state_dict(), model=written)
    with pytest.raises(UserError) as raised:
        encoder_file.load(tmp_path / "encoder.safetensors", "resnet")
    assert str(raised.value) == (
        f"{tmp_path}/encoder.safetensors: its model is {written}, but pretrain.model is resnet; set that to {written}, "
        "or run the pretrain stage"
    )


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    described(tmp_path / "encoder.safetensors", tiny().state_dict(), model="os")
    with pytest.raises(UserError, match=r"its model is os, which is not here; there are: resnet, vit"):
        encoder_file.load(tmp_path / "encoder.safetensors", "os")


def test_a_missing_file_is_one_line_that_says_who_writes_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError) as caught:
            encoder_file.load(path, "resnet")
        assert str(caught.value).startswith(f"{path}: cannot be read (")
        assert str(caught.value).endswith("; the pretrain stage writes it")
        assert "\n" not in str(caught.value)
    assert "(Is a directory)" in str(caught.value)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"cannot be read \(it is no file\); the pretrain stage writes it$"):
        encoder_file.load(tmp_path / "pipe", "resnet")
