"""Similarities of images and their views, with the pixels as representations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from simclr.evaluations import Findings, Subject, health, invariance
from simclr.evaluations.invariance import Params
from tests.helpers.ranks import ALONE
from tests.helpers.subjects import SIDE, Pixels, subject


def evaluated(frozen: Subject, images: int = 100) -> Findings:
    return invariance.evaluate(Params(images=images), frozen)


def pixels(frozen: Subject) -> Tensor:
    """The images of test as the encoder gets them, (N, 3, S, S)."""
    return frozen.features["test"].h.view(-1, 3, SIDE, SIDE)


def similarity(first: Tensor, second: Tensor) -> float:
    return float(F.cosine_similarity(first.flatten(1).double(), second.flatten(1).double()).mean())


def test_a_flip_always_happens_and_is_that_of_torch(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    flipped = pixels(frozen).flip(3)
    assert evaluated(frozen).metrics["flip"] == pytest.approx(similarity(pixels(frozen), flipped), abs=1e-6)


def test_what_changes_nothing_has_a_similarity_of_one(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    jitter, crop = (frozen.augmentations[name] for name in ("jitter", "crop"))
    still = replace(jitter.parameters, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    whole = replace(crop.parameters, scale=[1.0, 1.0], ratio=[1.0, 1.0])
    options = {"jitter": replace(jitter, parameters=still), "crop": replace(crop, parameters=whole)}
    found = evaluated(replace(frozen, augmentations=options, pretrained_with=["crop", "jitter"])).metrics
    assert found["jitter"] == pytest.approx(1)
    assert found["crop"] == pytest.approx(1, abs=1e-6)
    assert found["all"] == pytest.approx(1, abs=1e-6)
    assert found["alignment"] == pytest.approx(0, abs=1e-6)
    assert list(found) == ["jitter", "crop", "all", "other_image", "alignment"]


def test_a_dead_encoder_is_no_good_one(tmp_path: Path) -> None:
    dead = Pixels()
    dead.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(1e9, 0.0))
    found = evaluated(subject(tmp_path, ALONE, dead)).metrics
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_it_sees_the_part_of_an_image_that_the_evaluation_sees(share: float, tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE, share=share)
    alike = health.evaluate(health.Params(images=100), frozen).metrics["similarity"]
    assert evaluated(frozen).metrics["other_image"] == pytest.approx(alike, abs=1e-5)


def test_different_images_by_a_loop(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    h = F.normalize(frozen.features["test"].h.double(), dim=1)
    pairs = [float(h[i] @ h[j]) for i in range(len(h)) for j in range(len(h)) if i != j]
    assert evaluated(frozen).metrics["other_image"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_every_augmentation_is_measured(tmp_path: Path) -> None:
    frozen = subject(tmp_path, ALONE)
    found = evaluated(frozen, images=5)
    assert [row["augmentation"] for row in found.table] == [*frozen.augmentations, "all", "other_image"]
    assert all(-1 <= found.metrics[name] <= 1 + 1e-6 for name in frozen.augmentations)
    assert found.metrics["solarize"] < found.metrics["blur"] < 1
    assert not torch.is_grad_enabled() or frozen.encoder.training is False
