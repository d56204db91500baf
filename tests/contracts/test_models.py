"""What every family of `simclr.models` keeps: a new file is tried before its author has written a test.

It is tried as in params.yaml, and with the changes that `CHANGES` names.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from simclr.core import options
from simclr.features import encoder_file
from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform
from simclr.learning import optimizer
from tests.helpers.recipes import SHIPPED

CHANGES: dict[str, list[dict[str, Any]]] = {
    "resnet": [{"norm": norm} for norm in ("group", "layer", "none")],
}
CASES = [
    pytest.param(name, changes, id=" ".join([name, *map(str, changes.values())]))
    for name in options.names("models")
    for changes in ({}, *CHANGES.get(name, []))
]
SIDE = 16
IMAGES = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def built(name: str, changes: dict[str, Any], seed: int = 0) -> Encoder:
    """The encoder of params.yaml, with `changes`."""
    option = options.checked("models", name, {"models": {name: SHIPPED["models"][name] | changes}}, "test")
    torch.manual_seed(seed)
    encoder: Encoder = option.module.build(option.parameters, SIDE)
    return encoder


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_images_become_representations(name: str, changes: dict[str, Any]) -> None:
    encoder = built(name, changes)
    for layout in (torch.contiguous_format, torch.channels_last):
        h = encoder(IMAGES.contiguous(memory_format=layout))
        assert h.shape == (len(IMAGES), encoder.dimension)
        assert h.isfinite().all()
    assert not torch.allclose(h[0], h[1])
    assert 0 < encoder.crop_share <= 1


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_every_weight_learns(name: str, changes: dict[str, Any]) -> None:
    encoder = built(name, changes)
    # beyond the first steps: what begins with zeros hides what is before it
    for weight in encoder.parameters():
        weight.data += 0.02 * torch.randn(weight.shape)
    encoder(IMAGES).square().sum().backward()
    for key, weight in encoder.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.abs().sum() > 0, key


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_the_seed_decides_the_weights(name: str, changes: dict[str, Any]) -> None:
    first, again, other = (built(name, changes, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    assert any(not torch.equal(tensor, other[key]) for key, tensor in first.items())


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_its_architecture_makes_the_same_network(name: str, changes: dict[str, Any]) -> None:
    encoder = built(name, changes)
    again = type(encoder)(**json.loads(json.dumps(encoder.architecture)))
    assert again.architecture == encoder.architecture
    assert (again.dimension, again.crop_share) == (encoder.dimension, encoder.crop_share)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(IMAGES), encoder.eval()(IMAGES))


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_its_file_brings_it_back_frozen(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    encoder, transform = built(name, changes), EvalTransform(SIDE, 1.0, [0.5] * 3, [0.5] * 3)
    encoder_file.save(tmp_path / "encoder.safetensors", encoder, transform)
    loaded, _ = encoder_file.load(tmp_path / "encoder.safetensors", name)
    assert type(loaded) is type(encoder)
    assert encoder_file.option(loaded) == f"models.{name}"
    # frozen too: torch may multiply by a weight that needs a gradient in another order
    assert torch.equal(loaded(IMAGES), encoder_file.freeze(encoder)(IMAGES))
    assert not any(weight.requires_grad for weight in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_evaluated_an_image_does_not_depend_on_its_batch(name: str, changes: dict[str, Any]) -> None:
    encoder = encoder_file.freeze(built(name, changes))
    torch.testing.assert_close(encoder(IMAGES[2:3])[0], encoder(IMAGES)[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_in_training_an_image_depends_on_its_batch_by_batch_norm_alone(name: str, changes: dict[str, Any]) -> None:
    encoder = built(name, changes).train()
    alone, among = encoder(IMAGES[2:4])[0], encoder(IMAGES)[2]
    depends = any(isinstance(module, _BatchNorm) for module in encoder.modules())
    assert torch.allclose(alone, among, rtol=1e-4, atol=1e-5) != depends


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_what_does_not_decay_is_a_weight_of_it(name: str, changes: dict[str, Any]) -> None:
    encoder = built(name, changes)
    weights = dict(encoder.named_parameters())
    assert set(encoder.undecayed) <= weights.keys()
    decayed, spared = ({id(weight) for weight in group["params"]} for group in optimizer.by_decay(encoder))
    assert decayed | spared == {id(weight) for weight in weights.values()}
    for key, weight in weights.items():
        assert (id(weight) in spared) == (weight.ndim <= 1 or key in encoder.undecayed), key
