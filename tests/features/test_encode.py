"""Representations against one image at a time, in any batches and on any number of ranks."""

import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from benchmarks.fake_memory import CUDA, counted
from torch import Tensor, nn

from simclr.core.errors import UserError
from simclr.data import beton
from simclr.data.beton import RAW, Beton, StoredImage
from simclr.distributed.session import Session
from simclr.features import encode
from simclr.features.encode import encode_splits, representations
from simclr.features.eval_transform import EvalTransform
from simclr.models.resnet import Encoder
from tests.helpers.betons import noise, stored
from tests.helpers.ranks import ALONE, on_ranks

TRANSFORM = EvalTransform(size=8, crop_share=1.0, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
COUNT = 10


def network() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder("resnet10", 0.125, small_stem=True, zero_init_residual=False)
    encoder(torch.randn(16, 3, 8, 8))  # so that the running statistics are not those of the batch
    return encoder


@pytest.fixture
def split(tmp_path: Path) -> Beton:
    return stored(tmp_path / "train.beton", noise(COUNT, 8, seed=0), np.zeros(COUNT, np.int64))


@torch.no_grad()
def one_by_one(encoder: Encoder, samples: list[int]) -> Tensor:
    encoder = encoder.eval()
    pixels = torch.from_numpy(noise(COUNT, 8, seed=0)).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(TRANSFORM.mean)[:, None, None], torch.tensor(TRANSFORM.std)[:, None, None]
    return torch.cat([encoder((pixels[sample : sample + 1] - mean) / std) for sample in samples])


SAMPLES = [[3, 0, 9, 1, 2, 7], [5], list(range(COUNT)), [4, 4, 8]]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("samples", SAMPLES, ids=len)
def test_they_come_in_the_order_of_the_samples(split: Beton, samples: list[int], batch_size: int) -> None:
    found = representations(network(), split, np.array(samples), TRANSFORM, batch_size, ALONE)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one_by_one(network(), samples))


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_not_touched(split: Beton, training: bool) -> None:
    encoder = network().train(training)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    representations(encoder, split, np.arange(COUNT), TRANSFORM, 4, ALONE)
    assert all(module.training is training for module in encoder.modules())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_they_can_be_learnt_from(split: Beton) -> None:
    found = representations(network(), split, np.arange(COUNT), TRANSFORM, 4, ALONE)
    assert not found.requires_grad
    layer = nn.Linear(found.shape[1], 1)
    layer(found).sum().backward()
    torch.testing.assert_close(layer.weight.grad, found.sum(dim=0, keepdim=True))


def on_rank(session: Session, path: Path) -> list[tuple[Tensor, int]]:
    split, calls = beton.read(path), []
    found = []
    for samples in SAMPLES:
        calls.clear()
        h = representations(
            network(), split, np.array(samples), TRANSFORM, 2, session, after_batch=lambda: calls.append(None)
        )
        found.append((h, len(calls)))
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_has_its_share(split: Beton, world: int) -> None:
    by_rank = on_ranks(world, on_rank, split.path)
    for number, samples in enumerate(SAMPLES):
        together = torch.cat([found[number][0] for found in by_rank])
        torch.testing.assert_close(together, one_by_one(network(), samples))
        batches = {found[number][1] for found in by_rank}
        assert batches == {
            math.ceil(math.ceil(len(samples) / world) / 2)
        }  # the same on all, or they would wait for each other


def test_what_is_called_between_batches_may_end_it(split: Beton) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    encoder = network().train()
    with pytest.raises(KeyboardInterrupt):
        representations(encoder, split, np.arange(COUNT), TRANSFORM, 4, ALONE, after_batch=stop)
    assert encoder.training


@pytest.mark.parametrize("sizes", [[(8, 8)] * 3, [(8, 8), (8, 13), (12, 8)]], ids=["of one size", "of many sizes"])
def test_the_central_square_is_encoded(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    images = [noise(1, 13, seed)[0, :height, :width] for seed, (height, width) in enumerate(sizes)]
    found = (StoredImage(RAW, *image.shape[:2], image.tobytes()) for image in images)
    beton.write(tmp_path / "test.beton", found, np.zeros(3, np.int64), largest=1000)
    half = EvalTransform(size=4, crop_share=0.5, mean=[0.0] * 3, std=[1.0] * 3)
    rows = representations(nn.Flatten(), beton.read(tmp_path / "test.beton"), np.arange(3), half, 2, ALONE)
    for row, image, (height, width) in zip(rows, images, sizes, strict=True):
        top, left = (height - 4) // 2, (width - 4) // 2
        square = torch.from_numpy(image[top : top + 4, left : left + 4].copy()).permute(2, 0, 1) / 255
        torch.testing.assert_close(row, square.flatten())


@pytest.mark.parametrize("checked", [4, 8192])
def test_a_representation_that_is_not_finite_is_told(
    checked: int, split: Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        """Of the last image alone."""

        encoded = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Broken.encoded += len(images)
            return images.flatten(1) / (torch.arange(len(images)) != COUNT - 1 - Broken.encoded + len(images))[:, None]

    monkeypatch.setattr(encode, "_ROWS", checked)
    with pytest.raises(
        UserError, match=r"train\.beton: the encoder's representations of these images are not finite, or "
    ):
        encode_splits(Broken(), {"train": split}, TRANSFORM, 4, ALONE)


def test_raw_pixels_of_imagenet_fit_beside_what_is_made_to_check_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """By count: to ask of all at once whether they are finite takes three times their memory."""
    count, width = 1_268_355, 3 * 32 * 32
    rows = mock.Mock(labels=np.zeros(count, np.int64), spec_set=["labels", "__len__"])
    rows.__len__ = lambda _: count
    monkeypatch.setattr(encode, "representations", lambda *_: torch.empty(count, width, device=CUDA))
    monkeypatch.setattr(Tensor, "__bool__", lambda _: True)  # fake tensors have no values
    with counted() as peak:
        found = encode_splits(nn.Flatten(), {"train": rows}, TRANSFORM, 512, Session(rank=0, world_size=1, device=CUDA))
    assert found["train"].count == count
    assert 4 * count * width < peak.gpu < 1.1 * 4 * count * width
