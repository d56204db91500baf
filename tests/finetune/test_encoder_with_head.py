"""An encoder with the first layers of its head, against the layers one by one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simclr.core.errors import UserError
from simclr.features.encoder import Encoder
from simclr.finetune.encoder_with_head import EncoderWithHead, join, untrained
from simclr.finetune.finetune import trainable
from simclr.finetune.finetune_params import check_head
from simclr.learning import projection_head
from simclr.learning.optimizer import by_decay
from simclr.learning.projection_head import Head, HeadParams
from simclr.models import resnet, vit
from tests.finetune.test_finetune import network, parameters


def head(layers: int, batch_norm: bool = True) -> Head:
    torch.manual_seed(1)
    shape = HeadParams(layers=layers, hidden=6, output=4, batch_norm=batch_norm, dropout=0.5)
    model = projection_head.build(shape, dimension=network().dimension)
    for _ in range(3):  # other running statistics than the initial ones
        model(torch.randn(20, network().dimension), torch.arange(20))
    return model.eval()


def by_hand(encoder: Encoder, model: Head, count: int, images: Tensor) -> Tensor:
    values: Tensor = encoder(images)
    modules = iter(model.hidden)
    for _ in range(count):
        values = next(modules)(values)
        if model.shape.batch_norm:
            values = next(modules)(values)
        values = F.relu(values)
        next(modules)
    return values


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("layers", "count"), [(2, 1), (3, 1), (3, 2)])
def test_it_is_the_layers_one_after_the_other(layers: int, count: int, batch_norm: bool) -> None:
    encoder, model, images = network().eval(), head(layers, batch_norm), torch.randn(5, 3, 8, 8)
    joined = join(encoder, model, count)
    found = joined(images)
    assert found.shape == (5, joined.dimension)
    torch.testing.assert_close(found, by_hand(encoder, model, count, images), rtol=0, atol=0)
    assert sum(isinstance(module, nn.Linear) for module in joined.modules()) == count


def test_without_layers_it_is_the_encoder_itself() -> None:
    encoder = network()
    assert join(encoder, head(2), 0) is encoder
    assert join(encoder, None, 0) is encoder


def test_from_scratch_it_is_the_same_network_drawn_by_the_seed() -> None:
    encoder, model = network(), head(3)
    joined = join(encoder, model, 2)
    first, again, other = (untrained(encoder, model, 2, seed).state_dict() for seed in (1, 1, 2))
    shapes = {name: value.shape for name, value in joined.state_dict().items()}
    assert {name: value.shape for name, value in first.items()} == shapes
    for name in ("encoder.conv1.weight", "layers.0.weight"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], joined.state_dict()[name])
    assert not first["layers.1.running_mean"].any()
    assert type(untrained(encoder, model, 0, 1)) is resnet.Encoder


def test_training_a_copy_leaves_encoder_and_head_as_they_are() -> None:
    encoder, model = network().requires_grad_(False), head(2)
    copied = trainable(join(encoder, model, 1))
    assert all(weight.requires_grad for weight in copied.parameters())
    with torch.no_grad():
        for weight in copied.parameters():
            weight.add_(1)
    assert torch.equal(join(encoder, model, 1).state_dict()["layers.0.weight"], head(2).hidden[0].weight)


def test_what_the_encoder_exempts_from_decay_stays_exempt() -> None:
    encoder = vit.Encoder(image_size=8, patch_size=4, layers=1, heads=1, width=64)
    model = projection_head.build(
        HeadParams(layers=2, hidden=6, output=4, batch_norm=True, dropout=0.0), encoder.dimension
    )
    decayed, exempt = (group["params"] for group in by_decay(EncoderWithHead(encoder, model, 1)))
    assert any(weight is encoder.get_parameter(encoder.undecayed[0]) for weight in exempt)
    assert any(weight is model.hidden[0].weight for weight in decayed)


def test_more_layers_than_the_head_has_are_refused() -> None:
    check_head(parameters(head_layers=0), 0)
    check_head(parameters(head_layers=1), 2)
    for count, layers, takes in (
        (1, 0, "0, since pretrain.method has no projection head"),
        (2, 2, "0 to 1, since the projection head has 2 layers"),
    ):
        with pytest.raises(UserError) as caught:
            check_head(parameters(head_layers=count), layers)
        assert str(caught.value) == f"params.yaml: finetune.head_layers = {count} is not allowed; it takes {takes}"
