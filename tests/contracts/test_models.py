"""What every family of `simclr.models` keeps: a new file is tried before its author has written a test."""

import json
from pathlib import Path

import pytest
import torch

from simclr.core import options
from simclr.features import encoder_file
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.learning import optimizer
from tests.helpers.recipes import SHIPPED

NAMES = options.names("models")
SIDE = 16
IMAGES = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def built(name: str, seed: int = 0) -> Encoder:
    """The encoder of params.yaml."""
    option = options.checked("models", name, SHIPPED, "test")
    torch.manual_seed(seed)
    encoder: Encoder = option.module.build(option.parameters, SIDE)
    return encoder


@pytest.mark.parametrize("name", NAMES)
def test_images_become_representations(name: str) -> None:
    encoder = built(name)
    for layout in (torch.contiguous_format, torch.channels_last):
        h = encoder(IMAGES.contiguous(memory_format=layout))
        assert h.shape == (len(IMAGES), encoder.dimension)
        assert h.isfinite().all()
    assert not torch.allclose(h[0], h[1])
    assert 0 < encoder.crop_share <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    encoder = built(name)
    # beyond the first steps: what begins with zeros hides what is before it
    for weight in encoder.parameters():
        weight.data += 0.02 * torch.randn(weight.shape)
    encoder(IMAGES).square().sum().backward()
    for key, weight in encoder.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name: str) -> None:
    first, again, other = (built(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert any(not torch.equal(tensor, other[key]) for key, tensor in first.items())


@pytest.mark.parametrize("name", NAMES)
def test_its_architecture_makes_the_same_network(name: str) -> None:
    encoder = built(name)
    again = type(encoder)(**json.loads(json.dumps(encoder.architecture)))
    assert again.architecture == encoder.architecture
    assert (again.dimension, again.crop_share) == (encoder.dimension, encoder.crop_share)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(IMAGES), encoder.eval()(IMAGES))


@pytest.mark.parametrize("name", NAMES)
def test_its_file_brings_it_back_frozen(name: str, tmp_path: Path) -> None:
    encoder, transform = built(name), EvalTransform(SIDE, 1.0, [0.5] * 3, [0.5] * 3)
    encoder_file.save(tmp_path / "encoder.safetensors", encoder, transform)
    loaded, _ = encoder_file.load(tmp_path / "encoder.safetensors", name)
    assert type(loaded) is type(encoder)
    assert encoder_file.option(loaded) == f"models.{name}"
    # frozen too: torch may multiply by a weight that needs a gradient in another order
    assert torch.equal(loaded(IMAGES), encoder_file.freeze(encoder)(IMAGES))
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("name", NAMES)
def test_evaluated_an_image_does_not_depend_on_its_batch(name: str) -> None:
    encoder = encoder_file.freeze(built(name))
    torch.testing.assert_close(encoder(IMAGES[2:3])[0], encoder(IMAGES)[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_decay_is_a_weight_of_it(name: str) -> None:
    encoder = built(name)
    weights = dict(encoder.named_parameters())
    assert set(encoder.undecayed) <= weights.keys()
    decayed, spared = ({id(weight) for weight in group["params"]} for group in optimizer.by_decay(encoder))
    assert decayed | spared == {id(weight) for weight in weights.values()}
    for key, weight in weights.items():
        assert (id(weight) in spared) == (weight.ndim <= 1 or key in encoder.undecayed), key
