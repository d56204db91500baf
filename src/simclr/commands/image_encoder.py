"""An encoder together with what prepares images for it, in operations that ONNX has."""

import torch
from torch import Tensor, nn

from simclr.features.encoder import Encoder
from simclr.features.eval_transform import EvalTransform

_PRECISION = 2.0**22
"""Pillow rounds the weights of its filters to multiples of 1 / 2^22 (`PRECISION_BITS` of its Resample.c)."""


class ImageEncoder(nn.Module):
    """Images (N, 3, H, W) uint8, RGB and of any size, to representations h (N, D).

    They are cut and resized as Pillow does it in `EvalTransform`: along the rows, then along the columns, rounded to
    whole levels after each. All sums are of integers in float64, so that their order does not matter. Pillow 13 begins
    with the columns of some upright images, which can change a value by one level.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, transform: EvalTransform) -> None:
        super().__init__()
        self.encoder = encoder
        self._size, self._crop_share = transform.size, transform.crop_share
        self.register_buffer("mean", torch.tensor(transform.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(transform.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        h: Tensor = self.encoder((self.resized(images) / 255 - self.mean) / self.std)
        return h

    def resized(self, images: Tensor) -> Tensor:
        """The central squares (N, 3, S, S) float32, of whole levels from 0 to 255."""
        height, width = images.shape[2:]
        lengths = [torch.scalar_tensor(length, dtype=torch.float64) for length in (height, width)]
        side = torch.round(self._crop_share * torch.minimum(*lengths)).clamp(min=1)
        rows, columns = (
            self._filters(count, length, side) for count, length in zip((height, width), lengths, strict=True)
        )
        narrow = _levels(images.double() @ columns.mT)
        return _levels(rows @ narrow).float()

    def _filters(self, count: int, length: Tensor, side: Tensor) -> Tensor:
        """(S, count): what each of the `count` pixels of a line weighs in each target pixel; `length` is `count`."""
        scale = side / self._size
        centers = torch.floor((length - side) / 2) + (torch.arange(self._size, dtype=torch.float64) + 0.5) * scale
        distance = (torch.arange(count, dtype=torch.float64) + 0.5 - centers[:, None]).abs() / scale.clamp(min=1)
        weights = (1 - distance).clamp(min=0)
        return torch.floor(_PRECISION * weights / weights.sum(dim=1, keepdim=True) + 0.5)


def _levels(sums: Tensor) -> Tensor:
    return torch.floor(sums / _PRECISION + 0.5).clamp(0, 255)
