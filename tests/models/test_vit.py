"""Vision transformers against torchvision's networks, and which patches and heads there can be."""

import re

import pytest
import torch
import torchvision
from torch import nn

from simclr import presets
from simclr.core.errors import UserError
from simclr.learning import optimizer
from simclr.models import vit
from simclr.models.vit import Encoder, Params
from simclr.training import recipe as recipes

TINY = {"patch_size": 4, "layers": 1, "heads": 3, "width": 12}


def test_it_is_torchvisions_network_without_the_classifier() -> None:
    with torch.device("meta"):
        reference = torchvision.models.vit_b_16()
        reference.heads = nn.Identity()
        ours = Encoder(224, patch_size=16, layers=12, heads=12, width=768)
    assert ours.dimension == 768
    shapes = [{key: weight.shape for key, weight in network.state_dict().items()} for network in (ours, reference)]
    assert shapes[0] == shapes[1]


def test_h_is_the_class_token_after_the_last_norm() -> None:
    encoder = Encoder(8, **TINY)
    tokens: list[torch.Tensor] = []
    encoder.encoder.ln.register_forward_hook(lambda *call: tokens.append(call[2]))
    h = encoder(torch.rand(2, 3, 8, 8))
    assert tokens[0].shape == (2, 1 + 4, 12)
    assert torch.equal(h, tokens[0][:, 0])


def test_nothing_is_dropped() -> None:
    encoder, images = Encoder(8, **TINY).train(), torch.rand(2, 3, 8, 8)
    assert torch.equal(encoder(images), encoder(images))


def test_its_token_and_positions_do_not_decay() -> None:
    encoder = Encoder(8, **TINY)
    spared = {id(weight) for weight in optimizer.by_decay(encoder)[1]["params"]}
    assert {id(encoder.class_token), id(encoder.encoder.pos_embedding)} <= spared
    assert id(encoder.conv_proj.weight) not in spared


@pytest.mark.parametrize(("resolution", "share"), [(64, 1.0), (68, 0.875)])
def test_small_images_are_evaluated_whole(resolution: int, share: float) -> None:
    assert Encoder(resolution, **TINY).crop_share == share


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 5}, "models.vit.patch_size = 5 is not allowed; it takes a divisor of 8, which is pretrain."),
        ({"patch_size": 16}, "models.vit.patch_size = 16 is not allowed; it takes a divisor of 8, "),
        ({"heads": 5}, "models.vit.heads = 5 is not allowed; it takes a divisor of 12, which is models.vit.width"),
    ],
)
def test_patches_that_do_not_fill_an_image_and_heads_that_do_not_share_the_width_are_refused(
    changes: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=f"^params.yaml: {re.escape(message)}[^\\n]*$"):
        vit.check(Params(**(TINY | changes)), 8, "params.yaml")


@pytest.mark.parametrize("preset", presets.options("experiment"))
def test_its_part_goes_with_every_preset(preset: str) -> None:
    """But for small views, since it takes images of one size."""
    values = presets.compose(preset, ["encoder=vit_tiny", "pretrain.views.small.count=0"])
    recipe = recipes.checked(values, "test")
    with torch.device("meta"):
        encoder = recipe.model.module.build(recipe.model.parameters, recipe.parameters.views.resolution)
    assert (recipe.model.path, encoder.dimension) == ("models.vit", 192)
