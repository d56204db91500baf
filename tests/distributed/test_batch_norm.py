"""BatchNorm over ranks against torch's own on the whole batch."""

from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from simclr.distributed import batch_norm
from simclr.distributed.batch_norm import convert_sync_batchnorm
from simclr.distributed.session import Session
from tests.helpers.ranks import on_ranks

SHARE = 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5)
    )
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
    return model


def batch(world: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs, and what each output weighs in the loss."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(world * SHARE, 3, 8, 8, generator=generator, dtype=dtype) * 3 + 1
    return inputs, torch.randn(world * SHARE, 5, generator=generator, dtype=dtype)


def trained(model: nn.Module, inputs: Tensor, weights: Tensor) -> Tensor:
    """Two passes, so that running statistics move twice; the loss is a sum over samples."""
    for _ in range(2):
        outputs = model(inputs)
    (outputs * weights).sum().backward()
    return outputs.detach()


class Kernels:
    """What torch's kernels of these names compute, which no CPU has: formulas in place of them."""

    @staticmethod
    def batch_norm_stats(inputs: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        rows = inputs.movedim(1, -1).flatten(0, -2)
        return rows.mean(0), (rows.var(0, correction=0) + eps).rsqrt()

    @staticmethod
    def batch_norm_gather_stats_with_counts(
        inputs: Tensor, mean: Tensor, invstd: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float,
        eps: float, counts: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        count = counts.sum()
        whole = (counts[:, None] * mean).sum(0) / count
        squares = counts[:, None] * (invstd**-2 - eps + (mean - whole) ** 2)
        running_mean.mul_(1 - momentum).add_(momentum * whole)
        running_var.mul_(1 - momentum).add_(momentum * squares.sum(0) / (count - 1))
        return whole, (squares.sum(0) / count + eps).rsqrt()

    @staticmethod
    def batch_norm_elemt(
        inputs: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float
    ) -> Tensor:
        return ((inputs.movedim(1, -1) - mean) * invstd * weight + bias).movedim(-1, 1)

    @staticmethod
    def batch_norm_backward_reduce(
        gradient: Tensor, inputs: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *needed: bool
    ) -> tuple[Tensor, ...]:
        rows, centered = (values.movedim(1, -1).flatten(0, -2) for values in (gradient, inputs))
        sum_dy, sum_dy_xmu = rows.sum(0), (rows * (centered - mean)).sum(0)
        return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy

    @staticmethod
    def batch_norm_backward_elemt(
        gradient: Tensor, inputs: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, sum_dy: Tensor,
        sum_dy_xmu: Tensor, count: Tensor,
    ) -> Tensor:  # fmt: skip
        rows, centered = gradient.movedim(1, -1), inputs.movedim(1, -1) - mean
        total = count.sum()
        return ((rows - sum_dy / total - centered * invstd**2 * sum_dy_xmu / total) * invstd * weight).movedim(-1, 1)


NAMES = [name for name in vars(Kernels) if name.startswith("batch_norm")]


def on_share(session: Session, inputs: Tensor, weights: Tensor, form: str) -> dict[str, Any]:
    model = convert_sync_batchnorm(network().to(inputs.dtype), session)
    if form == "compiled":
        model.compile(backend="aot_eager")
    part = slice(session.rank * SHARE, session.rank * SHARE + SHARE)
    with pytest.MonkeyPatch.context() as patch:
        if form == "kernels":
            patch.setattr(batch_norm, "_by_torch_operations", batch_norm._CudaKernels.apply)
            for name in NAMES:
                patch.setattr(torch, name, getattr(Kernels, name))
        outputs = trained(model, inputs[part], weights[part])
    gradients = [weight.grad for weight in model.parameters()]
    evaluated = model.eval()(inputs).detach()
    return {"outputs": outputs, "gradients": gradients, "state": model.state_dict(), "evaluated": evaluated}


@pytest.mark.parametrize("form", ["operations", "compiled", "kernels"])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_normalise_as_one_process_does(world: int, form: str) -> None:
    inputs, weights = batch(world, torch.float64)
    model = network().double()
    outputs = trained(model, inputs, weights)
    found = on_ranks(world, on_share, inputs, weights, form)
    torch.testing.assert_close(torch.cat([rank["outputs"] for rank in found]), outputs)
    for weight, *parts in zip(model.parameters(), *(rank["gradients"] for rank in found), strict=True):
        torch.testing.assert_close(sum(parts), weight.grad)
    for rank in found:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(rank["state"][name], value)
        torch.testing.assert_close(rank["evaluated"], model.eval()(inputs).detach())


def in_bf16(session: Session, inputs: Tensor, weights: Tensor) -> dict[str, Any]:
    with torch.autocast("cpu", torch.bfloat16):
        return on_share(session, inputs, weights, "operations")


def test_statistics_are_in_float32_under_autocast() -> None:
    inputs, weights = batch(2, torch.float32)
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = trained(model, inputs, weights)
    for rank, found in enumerate(on_ranks(2, in_bf16, inputs, weights)):
        assert found["outputs"].dtype == outputs.dtype == torch.bfloat16
        own = outputs[rank * SHARE : rank * SHARE + SHARE]
        torch.testing.assert_close(found["outputs"], own, atol=0.05, rtol=0.02)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found["state"][name], value, atol=1e-5, rtol=1e-4)


def graphs(_: Session) -> tuple[int, int]:
    model = convert_sync_batchnorm(network(), Session(0, 2, torch.device("cpu")))
    explained = torch._dynamo.explain(model)(batch(1, torch.float32)[0])
    return explained.graph_count, explained.graph_break_count


def test_torch_compile_makes_one_graph_of_it() -> None:
    assert on_ranks(2, graphs) == [(1, 0)] * 2


class Dispatched(TorchDispatchMode):
    """Counts the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[function._schema.name.removeprefix("aten::")] += 1
        return function(*args, **(kwargs or {}))


SHAPES = {
    "batch_norm_stats": lambda x, *_: (x.new_empty(x.shape[1], dtype=torch.float32),) * 2,
    "batch_norm_gather_stats_with_counts": lambda x, means, *_: (torch.empty_like(means[0]),) * 2,
    "batch_norm_elemt": lambda x, *_: torch.empty_like(x),
    "batch_norm_backward_reduce": lambda _, x, mean, *__: (torch.empty_like(mean),) * 4,
    "batch_norm_backward_elemt": lambda _, x, *__: torch.empty_like(x),
}
WAITS = {"_local_scalar_dense", "nonzero", "index", "masked_select", "is_nonzero", "_to_copy"}
"""Operations that wait for a GPU, or may: a mask is an index too, and a copy may be one to the host."""


def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA tensor without a device and without values."""
    exchanged: list[int] = []
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: exchanged.append(tensor.numel()))
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    with torch.library._scoped_library("aten", "IMPL") as library, FakeTensorMode(), Dispatched() as dispatched:
        for name in NAMES:
            library.impl(name, SHAPES[name], "Meta")
        norm = convert_sync_batchnorm(nn.BatchNorm2d(16, device="cuda"), Session(3, 8, torch.device("cuda")))
        dispatched.count.clear()
        inputs = torch.empty(4, 16, 6, 6, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        outputs = norm(inputs)
        assert outputs.dtype == torch.bfloat16
        outputs.grad_fn.apply(torch.empty_like(outputs))  # without the engine, which needs a device
    assert [dispatched.count[name] for name in NAMES] == [1] * 5
    assert not WAITS & dispatched.count.keys()
    assert exchanged == [8 * 2 * 16, 2 * 16]


def test_a_process_alone_keeps_its_model() -> None:
    model = network()
    alone = Session(rank=0, world_size=1, device=torch.device("cpu"))
    assert convert_sync_batchnorm(model, alone) is model
    assert type(model[1]) is nn.BatchNorm2d
