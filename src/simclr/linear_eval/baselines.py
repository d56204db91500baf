"""Baselines of a pretrained encoder: the same network untrained, and raw pixels."""

from torch import nn

from simclr.data.beton import Beton
from simclr.distributed.session import Session
from simclr.features.encode import Features, encode_splits
from simclr.features.encoder import Encoder
from simclr.features.encoder_file import freeze, untrained
from simclr.features.eval_transform import EvalTransform

_RAW_PIXELS = 32
"""The largest side of images whose pixels are features."""
_ENCODED = 256
"""Images of an encoding batch."""


def untrained_features(
    seed: int, encoder: Encoder, transform: EvalTransform, splits: dict[str, Beton], session: Session
) -> dict[str, Features]:
    """The features of the same network before any training."""
    fresh = freeze(untrained(encoder, seed))
    return encode_splits(fresh, splits, transform, _ENCODED, session, "untrained, ")


def pixel_features(transform: EvalTransform, splits: dict[str, Beton], session: Session) -> dict[str, Features]:
    """Raw pixels as features, of images shrunk to at most 32 pixels on a side."""
    small = EvalTransform(min(transform.size, _RAW_PIXELS), transform.crop_share, transform.mean, transform.std)
    return encode_splits(nn.Flatten(), splits, small, _ENCODED, session, "raw pixels, ")
