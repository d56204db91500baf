import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from simclr import color


@pytest.fixture
def images() -> Tensor:
    images = torch.rand(12, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    images[0] = 0.5  # gray: no hue
    images[1] = 0
    images[2] = 1
    images[3, 1] = images[3, 0]  # two channels tie
    images[4, 2] = images[4, 1]
    return images


CASES = [
    (color.adjust_brightness, tv.adjust_brightness, 0.0, 2.0),
    (color.adjust_contrast, tv.adjust_contrast, 0.0, 2.0),
    (color.adjust_saturation, tv.adjust_saturation, 0.0, 2.0),
    (color.adjust_hue, tv.adjust_hue, -0.5, 0.5),
]


@pytest.mark.parametrize(("ours", "theirs", "low", "high"), CASES, ids=["brightness", "contrast", "saturation", "hue"])
def test_each_operation_agrees_with_torchvision(ours, theirs, low: float, high: float, images: Tensor) -> None:
    factors = torch.linspace(low, high, len(images))
    expected = torch.stack([theirs(image, factor.item()) for image, factor in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, atol=3e-6, rtol=0)


def test_grayscale_and_solarize_agree_with_torchvision(images: Tensor) -> None:
    torch.testing.assert_close(color.grayscale(images), tv.rgb_to_grayscale(images), atol=1e-6, rtol=0)
    torch.testing.assert_close(color.solarize(images, 0.3), tv.solarize(images, 0.3))


def test_jitter_applies_each_samples_operations_in_its_own_order(images: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(len(images), 4, generator=generator) * 0.8 + 0.6
    factors[:, 3] -= 1
    orders = torch.stack([torch.randperm(4, generator=generator) for _ in images])
    groups = [
        (operation, torch.tensor([row for row in range(len(images)) if orders[row, position] == operation]))
        for position in range(4)
        for operation in range(4)
    ]
    untouched = images.clone()
    found = color.jitter(images, factors, [(operation, rows.long()) for operation, rows in groups if len(rows)])
    theirs = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for row, image in enumerate(images):
        for operation in orders[row].tolist():
            image = theirs[operation](image, factors[row, operation].item())
        torch.testing.assert_close(found[row], image, atol=1e-5, rtol=0)
    assert torch.equal(images, untouched)
