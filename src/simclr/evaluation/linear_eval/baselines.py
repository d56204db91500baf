"""What a pretrained encoder is compared with: the same network untrained, and the pixels themselves."""

import torch
from torch import nn

from simclr.data.beton import Beton
from simclr.distributed.session import Session
from simclr.features.encode import Features, encoded
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import frozen
from simclr.features.eval_transform import EvalTransform

_RAW_PIXELS = 32
"""Side to which images are shrunk before their pixels are features."""
_ENCODED = 256
"""Images that are encoded at once."""


def untrained_features(
    seed: int, encoder: Encoder, transform: EvalTransform, splits: dict[str, Beton], session: Session
) -> dict[str, Features]:
    """What the same network gives before any training."""
    torch.manual_seed(seed)
    fresh = frozen(type(encoder)(**encoder.architecture))
    return encoded(fresh, splits, transform, _ENCODED, session, "untrained, ")


def pixel_features(transform: EvalTransform, splits: dict[str, Beton], session: Session) -> dict[str, Features]:
    """The pixels themselves, of images at most 32 on a side."""
    small = EvalTransform(min(transform.size, _RAW_PIXELS), transform.crop_share, transform.mean, transform.std)
    return encoded(nn.Flatten(), splits, small, _ENCODED, session, "raw pixels, ")
