"""The images of a folder whose representations are nearest to that of an image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from simclr.commands import feature_table, image_folder
from simclr.commands.feature_table import FeatureTable
from simclr.commands.folder_encoder import FolderEncoder
from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.core.rgb import Pixels
from simclr.distributed.session import open_session
from simclr.features import knn
from simclr.images import decode_image
from simclr.images.names import escape
from simclr.report import sheets

_AGREEMENT = 0.02
"""The largest distance of two representations of one image by one encoder, relative to their length: those of a CPU and
of a GPU's TF32 differ."""

_THUMBNAIL = 96
"""Pixels; the largest cell of a sheet."""


def search(
    root: Path, image: Path, count: int, encoder_path: Path, output: Path, features: Path | None, skip_unreadable: bool
) -> list[tuple[float, str]]:
    """Draw the query `image` and the `count` images below `root` that are nearest to it, or all, as `output`.

    Args:
        features: what `feature_table.writing` wrote of `root`; None encodes all its images.
        skip_unreadable: whether unreadable images are left out, and not refused.

    Returns:
        Cosine similarities and the names, relative to `root` and on one line each, most similar first.

    Raises:
        UserError: see `FolderEncoder.encode`; the query is unreadable, or `features` are of another encoder or folder.
    """
    with (
        open_session() as session,
        decode_image.accepting(truncated=False, megapixels=image_folder.MEGAPIXELS),
    ):
        query = image_folder.read(image)  # before anything that takes long
        encoder = FolderEncoder(encoder_path, session)
        if features:
            table = feature_table.load(features)
            _check(table, features, root, encoder, encoder_path)
        else:
            table = encoder.encode(image_folder.find(root), skip_unreadable=skip_unreadable)
        bank = torch.from_numpy(table.h).to(session.device)
        rows = knn.neighbors(encoder.encode_image(query)[None], bank, len(bank), count, session)
        similarities, nearest = (row[0].tolist() for row in rows)
        names = [table.names[index] for index in nearest]
        pixels = list(prefetch(lambda name: _shrunk(image_folder.read(root / name)), names, thread_pool.THREADS))
    shown = [escape(name) for name in names]
    title = f"Nearest of {len(bank):,} images by cosine similarity"
    sheets.search_sheet(output, _shrunk(query), pixels, similarities, shown, title)
    return list(zip(similarities, shown, strict=True))


def _check(table: FeatureTable, path: Path, root: Path, encoder: FolderEncoder, encoder_path: Path) -> None:
    """Refuse a `table` that is not of images of `root` by `encoder`, as its first row tells.

    Raises:
        UserError: it is not.
    """
    if table.h.shape[1] != encoder.dimension:
        raise UserError(
            f"{path}: {table.h.shape[1]} numbers for each image, but {encoder_path} gives {encoder.dimension}; "
            "run `simclr embed` again"
        )
    path_of_first = root / table.names[0]
    if not path_of_first.exists():
        raise UserError(
            f"{path}: is of another folder, or of images that are gone: there is no {escape(str(path_of_first))}"
        )
    first = encoder.encode_image(image_folder.read(path_of_first)).cpu()
    written = torch.from_numpy(table.h[0])
    if (first - written).norm() > _AGREEMENT * first.norm():
        raise UserError(
            f"{path}: its first row is not what {encoder_path} gives for {escape(str(root / table.names[0]))}; "
            "run `simclr embed` again"
        )


def _shrunk(pixels: Pixels) -> Pixels:
    """An image (H, W, 3), of at most `_THUMBNAIL` pixels a side: a thousand photographs would not fit into memory."""
    image = Image.fromarray(pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return np.asarray(image)
