"""The parts of ffcv in use, imported without compilation and without threads.

ffcv 1.0.2 keeps its two image modes in a dictionary for numba, which costs 3 to 6 seconds of compilation in every
process that imports it. No compiled code reads that dictionary, so a plain one takes its place.

It also sets the number of numba's threads, which starts them. Only its own Loader uses them, and the process waits for
those of TBB when it ends: where it may use one core alone, now and then for ever, and always if a thread imported it.
"""

from unittest import mock

import numba

with mock.patch("numba.typed.Dict", dict), mock.patch("numba.set_num_threads"):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.libffcv import ctypes_imdecode
    from ffcv.pipeline import compiler
    from ffcv.reader import Reader
    from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, FieldDescType, HeaderType, get_metadata_type

compiler.set_num_threads = numba.set_num_threads

__all__ = [
    "ALLOC_TABLE_TYPE", "CURRENT_VERSION", "IMAGE_MODES", "FieldDescType", "HeaderType", "IntField", "RGBImageField",
    "Reader", "ctypes_imdecode", "get_metadata_type",
]  # fmt: skip
