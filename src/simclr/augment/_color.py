"""What the changes of color share."""

from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""The weights of red, green and blue in the luma of ITU-R BT.601, as torchvision rounds them."""


def luma(images: Tensor, weights: Tensor) -> Tensor:
    """Of (N, 3, H, W), (N, 1, H, W); `weights` of the channels (3,) or, of each image, (N, 3)."""
    return (images * weights[..., None, None]).sum(dim=1, keepdim=True)
