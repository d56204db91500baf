"""Color operations on a batch, with a strength of its own for every sample.

Images are (N, 3, H, W) floating point in [0, 1]; factors are (N,). Each operation agrees with the function of the
same purpose in torchvision.transforms.functional, applied image by image.
"""

import torch
from torch import Tensor


def grayscale(images: Tensor) -> Tensor:
    """The luma of ITU-R BT.601, (N, 1, H, W)."""
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    weight = factors[:, None, None, None]
    return (weight * images + (1 - weight) * other).clamp(0, 1)


def _mean(gray: Tensor) -> Tensor:
    """Of each image, (N, 1, 1, 1). Values are summed as integers, in steps of 2^-24, because a sum in floating point
    depends on its order, and that on the number of images and threads."""
    total = (gray * 2**24).round_().sum(dim=(1, 2, 3), keepdim=True, dtype=torch.int64)
    return total / (2**24 * gray.shape[2] * gray.shape[3])


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply by `factors` >= 0: 0 is black, 1 the image itself."""
    return _blend(images, torch.zeros_like(images), factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Move away from the mean luma of the image by `factors` >= 0: 0 is that gray, 1 the image itself."""
    return _blend(images, _mean(grayscale(images)), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Move away from the gray image by `factors` >= 0: 0 is the gray image, 1 the image itself."""
    return _blend(images, grayscale(images), factors)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue by `shifts` in [-0.5, 0.5] of a full turn.

    In HSV, a channel is v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for R, G, B.
    """
    value, _ = images.max(dim=1)
    chroma = value - images.min(dim=1).values
    red, green, blue = images.unbind(1)
    divisor = torch.where(chroma == 0, 1, chroma)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    turned = sextant + 6 * shifts[:, None, None]
    position = (turned[:, None] + torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(position, 4 - position).clamp(0, 1)


def solarize(images: Tensor, threshold: float) -> Tensor:
    """Invert the values that are at least `threshold`."""
    return torch.where(images >= threshold, 1 - images, images)


JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
"""The operations of color jitter, in the order in which `jitter` numbers them."""


def jitter(images: Tensor, factors: Tensor, groups: list[tuple[int, Tensor]]) -> Tensor:
    """Color jitter with an order of operations for each sample.

    Args:
        images: (N, 3, H, W).
        factors: (N, 4), of brightness, contrast, saturation and the shift of hue.
        groups: (operation, samples) in the order of application; samples are int64 indices, prepared on the host so
            that the device never has to report how many there are.
    """
    images = images.clone()
    for operation, samples in groups:
        images[samples] = JITTER[operation](images[samples], factors[samples, operation])
    return images
