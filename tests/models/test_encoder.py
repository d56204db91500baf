"""The encoder against torchvision's networks and the papers' counts; its file, whole and damaged."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from simclr.core.errors import UserError
from simclr.models import encoder_file, resnet
from simclr.models.eval_transform import Preparation
from simclr.models.resnet import Encoder, EncoderParams

PREPARATION = Preparation(size=8, crop_share=0.875, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])


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


def shape(name: str, width: float, small_stem: bool) -> Encoder:
    """The encoder without numbers, made in no time."""
    with torch.device("meta"):
        return Encoder(name, width, small_stem, zero_init_residual=False)


@pytest.mark.parametrize(("name", "dimension"), [("resnet18", 512), ("resnet50", 2048)])
def test_at_width_1_it_is_torchvisions_network_without_the_classifier(name: str, dimension: int) -> None:
    reference = getattr(torchvision.models, name)(num_classes=1)
    reference.fc = nn.Identity()
    ours = Encoder(name, 1.0, small_stem=False, zero_init_residual=False)
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(images), reference(images))  # and both move their running statistics
    outputs = ours.eval()(images)
    assert torch.equal(outputs, reference.eval()(images))
    assert outputs.shape == (2, dimension) == (2, ours.dimension)


@pytest.mark.parametrize(
    ("name", "published", "dimension"),  # the counts that torchvision publishes include a classifier of 1000 classes
    [
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet101", 44_549_160, 2048),
        ("resnet152", 60_192_808, 2048),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, published: int, dimension: int) -> None:
    network = shape(name, 1.0, small_stem=False)
    assert sum(weight.numel() for weight in network.parameters()) == published - 1000 * (dimension + 1)


@pytest.mark.parametrize(("width", "millions"), [(1.0, 24), (2.0, 94), (4.0, 375)])
def test_wide_networks_have_the_papers_size(width: float, millions: int) -> None:
    """Chen et al. 2020, table 6."""
    network = shape("resnet50", width, small_stem=False)
    assert round(sum(weight.numel() for weight in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "width", "first", "dimension"),
    [
        ("resnet18", 0.25, 16, 128),
        ("resnet18", 2.0, 128, 1024),
        ("resnet50", 2.0, 128, 4096),
        ("resnet10", 0.3, 19, 154),
    ],
)
def test_the_width_multiplies_all_channels(name: str, width: float, first: int, dimension: int) -> None:
    network = shape(name, width, small_stem=True)
    assert network.conv1.out_channels == network.bn1.num_features == first
    assert network.dimension == dimension
    outputs = Encoder("resnet10", width, small_stem=True, zero_init_residual=False)(torch.randn(2, 3, 8, 8))
    assert outputs.shape == (2, round(512 * width))


@pytest.mark.parametrize(
    ("small_stem", "sizes"),
    [(True, [64, 64, 64, 32, 16, 8]), (False, [32, 16, 16, 8, 4, 2])],
    ids=["cifar", "imagenet"],
)
def test_the_stems_shrink_an_image_as_the_papers_do(small_stem: bool, sizes: list[int]) -> None:
    network = Encoder("resnet10", 0.125, small_stem, zero_init_residual=False)
    seen: list[int] = []
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        getattr(network, name).register_forward_hook(lambda *call: seen.append(call[2].shape[-1]))
    network(torch.randn(2, 3, 64, 64))
    assert seen == sizes
    kernel, stride = ((3, 3), (1, 1)) if small_stem else ((7, 7), (2, 2))
    assert (network.conv1.kernel_size, network.conv1.stride) == (kernel, stride)


@pytest.mark.parametrize(
    ("stem", "size", "small"),
    [("auto", 64, True), ("auto", 65, False), ("cifar", 224, True), ("imagenet", 8, False)],
)
def test_the_stem_follows_the_size_unless_it_is_given(stem: str, size: int, small: bool) -> None:
    parameters = EncoderParams(name="resnet10", width=0.125, stem=stem, zero_init_residual=False)
    network = resnet.build(parameters, size)
    assert network.architecture == {
        "name": "resnet10", "width": 0.125, "small_stem": small, "zero_init_residual": False,
    }  # fmt: skip
    assert isinstance(network.maxpool, nn.Identity) is small


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("name", "last"), [("resnet10", "bn2"), ("resnet50", "bn3")])
def test_every_block_begins_as_the_identity_if_asked_for(name: str, last: str, zero: bool) -> None:
    parameters = EncoderParams(name=name, width=0.125, stem="cifar", zero_init_residual=zero)
    network = resnet.build(parameters, 8)
    gains = {key: gain for key, gain in network.named_parameters() if "bn" in key and key.endswith("weight")}
    assert any(last in key for key in gains)
    for key, gain in gains.items():
        assert torch.equal(gain, torch.zeros_like(gain) if zero and last in key else torch.ones_like(gain)), key


@pytest.mark.parametrize("small_stem", [True, False])
def test_the_stem_is_initialised_like_the_other_convolutions(small_stem: bool) -> None:
    """He et al. 2015, equation 14, by fan-out."""
    torch.manual_seed(0)
    network = Encoder("resnet10", 2.0, small_stem, zero_init_residual=False)
    for convolution in (network.conv1, network.layer1[0].conv2):
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_the_seed_decides_the_weights() -> None:
    parameters = EncoderParams(name="resnet10", width=0.125, stem="auto", zero_init_residual=False)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(resnet.build(parameters, 8).conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_images_are_normalised_per_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    expected = images.clone()
    for channel in range(3):
        expected[:, channel] = (images[:, channel] - PREPARATION.mean[channel]) / PREPARATION.std[channel]
    torch.testing.assert_close(PREPARATION.normalise(images), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_what_is_saved_is_loaded(tmp_path: Path, memory_format: torch.memory_format) -> None:
    network = tiny().to(memory_format=memory_format)
    encoder_file.save(tmp_path / "new" / "encoder.safetensors", network, PREPARATION)
    loaded, preparation = encoder_file.load(tmp_path / "new" / "encoder.safetensors")
    assert preparation == PREPARATION
    assert loaded.architecture == network.architecture
    assert list(loaded.state_dict()) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not any(module.training for module in loaded.modules())
    assert not any(weight.requires_grad for weight in loaded.parameters())
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loaded(images), network.eval()(images).detach())


def test_a_file_of_before_zero_init_residual_was_a_choice_is_loaded(tmp_path: Path) -> None:
    network = tiny()
    del network.architecture["zero_init_residual"]
    encoder_file.save(tmp_path / "encoder.safetensors", network, PREPARATION)
    loaded, _ = encoder_file.load(tmp_path / "encoder.safetensors")
    assert loaded.architecture == {**network.architecture, "zero_init_residual": True}
    assert torch.equal(loaded.conv1.weight, network.conv1.weight)


def test_equal_encoders_give_equal_files(tmp_path: Path) -> None:
    first, second, other = (tmp_path / f"{name}.safetensors" for name in ("first", "second", "other"))
    encoder_file.save(first, tiny(), PREPARATION)
    encoder_file.save(second, tiny().to(memory_format=torch.channels_last), PREPARATION)
    encoder_file.save(other, tiny(seed=1), PREPARATION)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_the_file_is_for_everybody_whom_the_umask_lets_in(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        encoder_file.save(tmp_path / "encoder.safetensors", tiny(), PREPARATION)
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
            encoder_file.save(path, tiny(), PREPARATION)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def described(path: Path, tensors: dict[str, Tensor], **changes: object) -> None:
    """An encoder's file with a description of the caller's choice."""
    description = {
        "architecture": {"name": "resnet10", "width": 0.125, "small_stem": True},
        "preparation": {"size": 8, "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    save_file(tensors, path, metadata={"encoder": json.dumps(description | changes)})


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
    "no weights": lambda path: described(path, {"w": torch.zeros(2)}),
    "unknown architecture": lambda path: described(path, tiny().state_dict(), architecture={"name": "vgg"}),
    "unknown preparation": lambda path: described(path, tiny().state_dict(), preparation={"side": 8}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "encoder.safetensors"
    encoder_file.save(path, tiny(), PREPARATION)
    encoder_file.load(path)
    damage(path)
    with pytest.raises(UserError) as caught:
        encoder_file.load(path)
    assert str(caught.value) == f"{path}: damaged, or not an encoder that the pretrain stage wrote"


def test_a_missing_file_is_one_line_that_says_who_writes_it(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError) as caught:
            encoder_file.load(path)
        assert str(caught.value).startswith(f"{path}: cannot be read (")
        assert str(caught.value).endswith("; the pretrain stage writes it")
        assert "\n" not in str(caught.value)
