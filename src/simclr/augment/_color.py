"""The luma of grayscale and color jitter."""

from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in the luma of ITU-R BT.601, as torchvision rounds them."""


def luma(images: Tensor, weights: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W); `weights` of the channels: (3,), or (N, 3) for each image."""
    return (images * weights[..., None, None]).sum(dim=1, keepdim=True)
