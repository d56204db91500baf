"""ResNets against torchvision's networks and the papers' counts."""

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from simclr.core.errors import UserError
from simclr.models import resnet
from simclr.models.resnet import Encoder, Params
from tests.helpers.recipes import recipe

NORMS = {
    "batch": nn.BatchNorm2d,
    "group": partial(nn.GroupNorm, 32),
    "layer": partial(nn.GroupNorm, 1),
    "none": nn.Identity,
}
"""What torchvision's networks are made with."""


def shape(name: str, width: float, small_stem: bool) -> Encoder:
    """The encoder without numbers, made in no time."""
    with torch.device("meta"):
        return Encoder(name, width, small_stem, zero_init_residual=False)


@pytest.mark.parametrize(
    ("name", "dimension", "norm"), [("resnet50", 2048, "batch"), *(("resnet18", 512, norm) for norm in NORMS)]
)
def test_at_width_1_it_is_torchvisions_network_without_the_classifier(name: str, dimension: int, norm: str) -> None:
    reference = getattr(torchvision.models, name)(num_classes=1, norm_layer=NORMS[norm])
    reference.fc = nn.Identity()
    ours = Encoder(name, 1.0, small_stem=False, zero_init_residual=False, norm=norm)
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
    parameters = Params(depth=10, width=0.125, stem=stem, norm="batch", zero_init_residual=False)
    network = resnet.build(parameters, size)
    assert network.architecture == {
        "name": "resnet10", "width": 0.125, "small_stem": small, "zero_init_residual": False,
    }  # fmt: skip
    assert isinstance(network.maxpool, nn.Identity) is small


def norms(network: Encoder) -> list[Any]:
    return [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm | nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("width", "groups"),
    [(0.125, [4]), (0.25, [8]), (0.3, [1, 2, 7]), (0.5, [16]), (1.0, [32]), (2.0, [32]), (8.0, [32])],
)
def test_narrow_networks_have_fewer_groups(width: float, groups: list[int]) -> None:
    """As many as keep a group's channels those of the paper's network; at 0.3 of it, 19 channels share no divisor."""
    with torch.device("meta"):
        layers = norms(Encoder("resnet10", width, small_stem=True, zero_init_residual=False, norm="group"))
        published = norms(Encoder("resnet10", 1.0, small_stem=True, zero_init_residual=False, norm="group"))
    assert sorted({layer.num_groups for layer in layers}) == groups
    for layer, theirs in zip(layers, published, strict=True):
        assert layer.num_channels / layer.num_groups >= theirs.num_channels / 32


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_batch_norm_is_nowhere_else(norm: str) -> None:
    network = Encoder("resnet10", 0.25, small_stem=True, zero_init_residual=False, norm=norm)
    assert network.architecture["norm"] == norm
    assert not list(network.buffers())
    assert len(norms(network)) == (0 if norm == "none" else 12)
    if norm == "layer":
        assert {layer.num_groups for layer in norms(network)} == {1}


def test_no_gain_can_begin_with_0_where_there_is_none() -> None:
    message = (
        r"models\.resnet\.zero_init_residual = true is not allowed; it takes false, since models\.resnet\.norm is none"
    )
    with pytest.raises(UserError, match=message):
        recipe(models__resnet__norm="none", models__resnet__zero_init_residual=True)
    assert recipe(models__resnet__norm="none").model.parameters.norm == "none"


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("depth", "last"), [(10, "bn2"), (50, "bn3")])
def test_every_block_begins_as_the_identity_if_asked_for(depth: int, last: str, zero: bool, norm: str) -> None:
    parameters = Params(depth=depth, width=0.125, stem="cifar", norm=norm, zero_init_residual=zero)
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
    parameters = Params(depth=10, width=0.125, stem="auto", norm="batch", zero_init_residual=False)
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(resnet.build(parameters, 8).conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
