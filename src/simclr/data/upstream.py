"""The parts of ffcv in use, imported without compilation.

ffcv 1.0.2 keeps its two image modes in a dictionary for numba, which costs 3 to 6 seconds of compilation in every
process that imports it. No compiled code reads that dictionary, so a plain one takes its place.
"""

from unittest import mock

with mock.patch("numba.typed.Dict", dict):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.libffcv import ctypes_imdecode
    from ffcv.reader import Reader
    from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, FieldDescType, HeaderType, get_metadata_type

__all__ = [
    "ALLOC_TABLE_TYPE", "CURRENT_VERSION", "IMAGE_MODES", "FieldDescType", "HeaderType", "IntField", "RGBImageField",
    "Reader", "ctypes_imdecode", "get_metadata_type",
]  # fmt: skip
