"""LARS against the published algorithm, one tensor at a time."""

import pytest
import torch
from torch import Tensor

from simclr.learning import optimizer
from simclr.learning.lars import LARS
from simclr.learning.optimizer import OptimizerParams


def reference(weight: Tensor, gradients: list[Tensor], lr: float, momentum: float, decay: float, adapt: bool) -> Tensor:
    velocity = torch.zeros_like(weight)
    for gradient in gradients:
        update = gradient + decay * weight
        ratio = 1.0
        if adapt and weight.norm() > 0 and update.norm() > 0:
            ratio = 0.001 * (weight.norm() / update.norm()).item()
        velocity = momentum * velocity + lr * ratio * update
        weight = weight - velocity
    return weight


@pytest.mark.parametrize("zero", [False, True])
def test_steps_are_those_of_the_algorithm(zero: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(3, 4) if zero else torch.randn(3, 4, generator=generator)
    bias = torch.randn(4, generator=generator)
    gradients = [torch.randn(3, 4, generator=generator) for _ in range(3)]
    bias_gradients = [torch.randn(4, generator=generator) for _ in range(3)]
    weight, offset = torch.nn.Parameter(start.clone()), torch.nn.Parameter(bias.clone())
    unused = torch.nn.Parameter(torch.ones(2))
    solver = LARS([{"params": [weight, unused], "weight_decay": 0.01}, {"params": [offset], "adapt": False}], 0.5, 0.9)
    for gradient, bias_gradient in zip(gradients, bias_gradients, strict=True):
        weight.grad, offset.grad = gradient.clone(), bias_gradient.clone()
        solver.step()
    torch.testing.assert_close(weight.data, reference(start, gradients, 0.5, 0.9, 0.01, adapt=True))
    torch.testing.assert_close(offset.data, reference(bias, bias_gradients, 0.5, 0.9, 0.0, adapt=False))
    assert torch.equal(unused.data, torch.ones(2))


def solver_of_many(device: str = "cpu") -> LARS:
    """Of weights that have gradients, one in channels_last and one all zeros."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 5, 5), (7, 4), (2, 3)]
    values, gradients = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    values[2].zero_()
    for tensors in (values, gradients):
        tensors[0] = tensors[0].to(memory_format=torch.channels_last)
    weights = [torch.nn.Parameter(value.to(device)) for value in values]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.to(device)
    return LARS([{"params": weights, "weight_decay": 0.01}], 0.5)


def test_a_group_at_once_as_on_a_gpu_is_one_after_another_as_on_a_cpu() -> None:
    alone, together = solver_of_many(), solver_of_many()
    for _ in range(2):
        alone.step()
        (group,) = together.param_groups
        with torch.no_grad():
            together._update(group["params"], group)
    for one, other in zip(alone.param_groups[0]["params"], together.param_groups[0]["params"], strict=True):
        assert torch.equal(one, other)


def chosen(name: str) -> OptimizerParams:
    return OptimizerParams(
        name=name, lr=1.0, lr_scaling="none", momentum=0.8, weight_decay=0.1, warmup_epochs=0, clip_grad_norm=None
    )


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_decay_and_adaptation_skip_biases_and_batch_norm_whatever_they_are_called(name: str) -> None:
    model = torch.nn.ModuleDict(
        {
            "downsample": torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)),
            "head": torch.nn.Linear(4, 2),
        }
    )
    frozen = model["head"].bias.requires_grad_(False)
    solver = optimizer.build(chosen(name), optimizer.by_decay(model), 0.5)
    decayed, spared = solver.param_groups
    assert {weight.ndim for weight in decayed["params"]} == {2, 4}
    assert {weight.ndim for weight in spared["params"]} == {1}
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert decayed["lr"] == spared["lr"] == 0.5
    assert all(weight is not frozen for group in solver.param_groups for weight in group["params"])
    if name == "lars":
        assert decayed["adapt"] is True
        assert spared["adapt"] is False


def test_decay_skips_what_an_encoder_names() -> None:
    encoder = torch.nn.Linear(4, 2)
    encoder.undecayed = ("weight",)
    decayed, spared = optimizer.by_decay(torch.nn.ModuleList([encoder, torch.nn.Linear(2, 3)]))
    assert [weight.shape for weight in decayed["params"]] == [(3, 2)]
    assert [weight.shape for weight in spared["params"]] == [(2, 4), (2,), (3,)]


def test_a_group_may_have_a_rate_of_its_own() -> None:
    groups = [{"params": [torch.zeros(2, 2)], "decay": True, "lr": 3.0}, {"params": [torch.zeros(2)], "decay": False}]
    assert [group["lr"] for group in optimizer.build(chosen("sgd"), groups, 0.5).param_groups] == [3.0, 0.5]
