"""BatchNorm over ranks against torch's own on the whole batch."""

import torch
from ranks import on_ranks
from torch import Tensor, nn

from simclr.batch_norm import synchronised
from simclr.distributed import Session


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
    return model.double()


def trained(model: nn.Module, inputs: Tensor, weights: Tensor) -> Tensor:
    """Two passes, so that running statistics move twice; the loss is a sum over samples."""
    for _ in range(2):
        outputs = model(inputs)
    (outputs * weights).sum().backward()
    return outputs.detach()


def on_share(session: Session, inputs: Tensor, weights: Tensor) -> dict[str, object]:
    model = synchronised(network(), session)
    part = slice(session.rank * 4, session.rank * 4 + 4)
    outputs = trained(model, inputs[part], weights[part])
    gradients = [weight.grad for weight in model.parameters()]
    evaluated = model.eval()(inputs).detach()
    return {"outputs": outputs, "gradients": gradients, "state": model.state_dict(), "evaluated": evaluated}


def test_two_ranks_normalise_as_one_process_does() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64) * 3 + 1
    weights = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    model = network()
    outputs = trained(model, inputs, weights)
    first, second = on_ranks(2, on_share, inputs, weights)
    torch.testing.assert_close(torch.cat([first["outputs"], second["outputs"]]), outputs)
    for weight, one, other in zip(model.parameters(), first["gradients"], second["gradients"], strict=True):
        torch.testing.assert_close(one + other, weight.grad)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(first["state"][name], value)
        torch.testing.assert_close(second["state"][name], value)
    torch.testing.assert_close(first["evaluated"], model.eval()(inputs).detach())


def test_a_process_alone_keeps_its_model() -> None:
    model = network()
    alone = Session(rank=0, world=1, device=torch.device("cpu"))
    assert synchronised(model, alone) is model
    assert type(model[1]) is nn.BatchNorm2d
