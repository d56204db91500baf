"""What a pretrained encoder is compared with: the same network untrained, and the pixels themselves."""

import torch
from torch import nn

from simclr.data.beton import Beton
from simclr.distributed.session import Session
from simclr.features.encode import Features, encoded
from simclr.models.encoder_file import frozen
from simclr.models.eval_transform import Preparation
from simclr.models.resnet import Encoder

_RAW_PIXELS = 32
"""Side to which images are shrunk before their pixels are features."""
_ENCODED = 256
"""Images that are encoded at once."""


def untrained_features(
    seed: int, encoder: Encoder, preparation: Preparation, splits: dict[str, Beton], session: Session
) -> dict[str, Features]:
    """What the same network gives before any training."""
    torch.manual_seed(seed)
    fresh = frozen(Encoder(**encoder.architecture))
    return encoded(fresh, splits, preparation, _ENCODED, session, "untrained, ")


def pixel_features(preparation: Preparation, splits: dict[str, Beton], session: Session) -> dict[str, Features]:
    """The pixels themselves, of images at most 32 on a side."""
    small = Preparation(min(preparation.size, _RAW_PIXELS), preparation.crop_share, preparation.mean, preparation.std)
    return encoded(nn.Flatten(), splits, small, _ENCODED, session, "raw pixels, ")
