"""What only a CUDA device can show: the views and losses of a CPU, a step in bf16, ranks that share a device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simclr.augment import _jitter_batched
from simclr.commands import image_folder
from simclr.commands.folder_encoder import FolderEncoder
from simclr.data import loader
from simclr.data.loader import Crops
from simclr.device import transfer
from simclr.distributed import softmax
from simclr.distributed.batch_norm import convert_sync_batchnorm
from simclr.distributed.session import Session, open_session
from simclr.training import pretrain
from simclr.training.run_context import RunContext
from simclr.views.compose import Views
from tests.commands import folders
from tests.contracts.test_losses import CASES, batch_of, option, value_of
from tests.distributed.test_batch_norm import SHARE, batch, network, trained
from tests.gpu.test_fake_cuda import view_maker
from tests.helpers.augmentations import pictures, views
from tests.helpers.ranks import on_ranks
from tests.helpers.recipes import recipe
from tests.learning.test_lars import solver_of_many
from tests.training.test_pretrain import on_rank, striped, stripes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CPU, GPU = (Session(rank=0, world_size=1, device=torch.device(name)) for name in ("cpu", "cuda"))


def made(crops: Tensor, views: Views, device: torch.device) -> Tensor:
    sizes = np.full(len(crops) // 2, 32)
    _, drawn = views.draw(np.arange(len(sizes)), 1, sizes, sizes)
    rows = transfer.pack(views.rows(drawn, device), device).to(device)
    return views.augment(crops.to(device), rows).cpu()


@pytest.mark.parametrize("size", [1, 8, 33, 96, 224])
@pytest.mark.parametrize("triton", [True, False])
def test_views_are_those_of_the_cpu(size: int, triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not triton:
        monkeypatch.setattr(_jitter_batched, "_triton_works", lambda: False)
    crops = pictures(128, size)
    off = (made(crops, views(size), GPU.device) - made(crops, views(size), CPU.device)).abs() > 1e-4
    assert off.float().mean() < 0.005  # values at the threshold of solarize


def test_triton_works() -> None:
    assert _jitter_batched._triton_works()
    assert softmax._triton_works()


def test_crops_are_those_of_the_cpu(tmp_path: Path) -> None:
    file = striped(tmp_path / "file.beton", 16, 0)
    samples, boxes = np.arange(16), np.tile(np.array([[1, 2, 5, 4], [0, 0, 8, -8]]), (16, 1, 1))
    there, here = (
        loader.crops(loader.load(file, samples, [Crops(boxes, 12)], device).to(device), 0, 12)
        for device in (GPU.device, CPU.device)
    )
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["cifar10", "imagenet"])
def test_a_step_does_not_wait_for_the_gpu(preset: str, tmp_path: Path) -> None:
    """Views and what the encoder is given, after a first batch."""
    stream, transform, samples = view_maker(preset, tmp_path)
    for step in range(3):
        loaded = stream.load(samples, step)
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            transform.normalise_(stream.batch(loaded, len(samples)).images[0])
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize(("name", "changes"), CASES)
def test_losses_are_those_of_the_cpu(
    name: str, changes: dict[str, Any], triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "_triton_works", lambda: triton)
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    here, there = z.clone().requires_grad_(), z.cuda().requires_grad_()
    batch = batch_of(32, 2)
    first, second = (
        value_of(
            option(name, **changes),
            z,
            replace(batch, **{name: getattr(batch, name).to(z.device) for name in ("keys", "labels", "samples")}),
            session,
        )
        for z, session in ((here, CPU), (there, GPU))
    )
    first.backward()
    second.backward()
    torch.testing.assert_close(second.cpu(), first)
    assert here.grad is not None
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), here.grad, atol=1e-6, rtol=1e-4)


def test_steps_of_lars_are_those_of_the_cpu() -> None:
    there, here = solver_of_many("cuda"), solver_of_many()
    for _ in range(3):
        there.step()
        here.step()
    for found, expected in zip(there.param_groups[0]["params"], here.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(found.detach().cpu(), expected.detach())


def test_representations_of_a_folder_are_those_of_the_cpu(tmp_path: Path) -> None:
    folders.save_encoder(tmp_path / "encoder.safetensors")
    folders.pictures(tmp_path / "images", [f"{index}.png" for index in range(20)])
    found = image_folder.find(tmp_path / "images")
    there, here = (
        FolderEncoder(tmp_path / "encoder.safetensors", session).encode(found, skip_unreadable=False, batch_size=8)
        for session in (GPU, CPU)
    )
    assert there.names == here.names
    np.testing.assert_allclose(there.h, here.h, rtol=1e-2, atol=1e-2)


def test_deterministic_training_repeats_itself_bit_for_bit(tmp_path: Path) -> None:
    data = stripes(tmp_path, 32)
    states = []
    for _ in range(2):
        with open_session(deterministic=True) as session:
            result = pretrain.pretrain(
                recipe(views__augmentations=["crop", "jitter", "blur"], deterministic=True), data, session, RunContext()
            )
        states.append(result.encoder.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("compiled", [False, True])
def test_training_in_bf16_runs(compiled: bool, tmp_path: Path) -> None:
    data = stripes(tmp_path, 32)
    chosen = recipe(compile=compiled, views__augmentations=["crop", "jitter", "blur"], optimizer__name="lars")
    result = pretrain.pretrain(chosen, data, GPU, RunContext())
    assert len(result.history) == 2


def in_full_precision(session: Session, *arguments: Any) -> Any:
    """After a few steps at this rate, TF32's rounding (2^-11) and sums in any order change the loss by percents."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return on_rank(session, *arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"views__small__count": 2, "online_probe__lr": 0.1, "penalty__weights__l2": 1e-3},
        {"method": "moco"},
        {"method": "byol"},
        {"method": "adversarial"},
        {"method": "classifier"},
    ],
    ids=["SimCLR", "multi-crop, probe and penalty", "MoCo", "BYOL", "adversarial", "classifier"],
)
def test_a_compiled_network_learns_what_it_learns_otherwise(changes: dict[str, Any], tmp_path: Path) -> None:
    """Eight steps: of CUDA graphs, two record them and six replay them."""
    data = stripes(tmp_path, 32)
    changes |= {"precision": "fp32", "optimizer__name": "sgd", "optimizer__lr": 0.1}
    (plain, _), _ = in_full_precision(GPU, data, recipe(**changes))
    (compiled, _), _ = in_full_precision(GPU, data, recipe(compile=True, **changes))
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)


def normalised(session: Session, inputs: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor], dict[str, Tensor]]:
    model = convert_sync_batchnorm(network().to(session.device, inputs.dtype), session)
    part = slice(session.rank * SHARE, session.rank * SHARE + SHARE)
    outputs = trained(model, inputs[part].to(session.device), weights[part].to(session.device))
    gradients = [weight.grad.cpu() for weight in model.parameters() if weight.grad is not None]
    return outputs.cpu(), gradients, {name: value.cpu() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_on_one_gpu_normalise_as_one_process_does(world: int) -> None:
    inputs, weights = batch(world, torch.float64)
    model = network().double()
    outputs = trained(model, inputs, weights)
    found = on_ranks(world, normalised, inputs, weights)
    torch.testing.assert_close(torch.cat([own for own, _, _ in found]), outputs)
    for weight, *parts in zip(model.parameters(), *(gradients for _, gradients, _ in found), strict=True):
        torch.testing.assert_close(sum(parts), weight.grad)
    for _, _, state in found:
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value)


def test_two_ranks_on_one_gpu_train_as_one_process_does(tmp_path: Path) -> None:
    data = stripes(tmp_path, 32)
    chosen = recipe(precision="fp32", optimizer__name="sgd", optimizer__lr=0.1)
    (whole, _), _ = in_full_precision(GPU, data, chosen)
    for (history, _), _ in on_ranks(2, in_full_precision, data, chosen):
        for ours, theirs in zip(history, whole, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-2)
