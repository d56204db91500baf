"""An encoder that is shown image files."""

import logging
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from simclr.commands import image_folder
from simclr.commands.feature_table import FeatureTable
from simclr.commands.image_folder import ImageFolder
from simclr.core import thread_pool
from simclr.core.errors import UserError
from simclr.core.prefetch import prefetch
from simclr.core.rgb import Pixels
from simclr.device.transfer import pack
from simclr.distributed.session import Session
from simclr.features import encoder_file
from simclr.images import decode_image
from simclr.images.names import list_unreadable
from simclr.tracking import progress

_BATCH_SIZE = {"cpu": 1, "cuda": 256}
"""The default. On a CPU the last bits depend on the number of images in a batch."""

_log = logging.getLogger(__name__)


class FolderEncoder:
    """The encoder of the file `path`, on the device of `session`, and what prepares images for it.

    Raises:
        UserError: see `encoder_file.load`.
    """

    def __init__(self, path: Path, session: Session) -> None:
        self._path, self._device = path, session.device
        self._encoder, self._prepare = encoder_file.load(path)
        self._encoder.to(session.device)
        if session.device.type == "cuda":  # faster there; on a CPU it would change the last bits
            self._encoder.to(memory_format=torch.channels_last)

    @property
    def dimension(self) -> int:
        """D, the size of a representation."""
        return self._encoder.dimension

    def encode_image(self, pixels: Pixels) -> Tensor:
        """h (D,) float32 of an image (H, W, 3) uint8, on the device."""
        return self._represent([self._prepare(Image.fromarray(pixels))])[0]

    def encode(self, folder: ImageFolder, *, skip_unreadable: bool, batch_size: int | None = None) -> FeatureTable:
        """The representations of all images of `folder`, in their order; threads decode ahead of the encoder.

        On a CPU a row is the encoder applied to that image alone, to the bit, but for another `batch_size` than the
        default.

        Raises:
            UserError: images are unreadable, unless they are to be skipped, or all of them are; a representation is not
                finite.
        """

        def load(name: str) -> Tensor | UserError:
            try:
                return self._prepare(Image.fromarray(image_folder.read(folder.root / name)))
            except UserError as error:
                return error

        batch_size = batch_size or _BATCH_SIZE[self._device.type]
        h = torch.empty(len(folder.names), self.dimension, device=self._device)
        names: list[str] = []
        bad: list[str] = []
        waiting: list[Tensor] = []
        with (
            decode_image.accepting(truncated=False, megapixels=image_folder.MEGAPIXELS),
            progress.bar(len(folder.names), "img", "embed") as bar,
        ):
            for name, image in zip(folder.names, prefetch(load, folder.names, thread_pool.THREADS), strict=True):
                if isinstance(image, UserError):
                    bad.append(str(image))
                elif skip_unreadable or not bad:  # else the others are read only to name all unreadable ones
                    names.append(name)
                    waiting.append(image)
                if len(waiting) == batch_size:
                    h[len(names) - batch_size : len(names)] = self._represent(waiting)
                    waiting.clear()
                bar.update()
            if waiting:
                h[len(names) - len(waiting) : len(names)] = self._represent(waiting)
        if bad:
            reasons = list_unreadable(bad, len(folder.names))
            if not skip_unreadable:
                raise UserError(f"{reasons}; --skip-unreadable leaves them out")
            if not names:
                raise UserError(reasons)
            _log.info(f"left out: {reasons}")
        h = h[: len(names)]
        if not h.isfinite().all():
            raise UserError(f"{self._path}: its representations of images of {folder.root} are not finite")
        return FeatureTable(names, h.cpu().numpy())

    @torch.no_grad()
    def _represent(self, images: list[Tensor]) -> Tensor:
        """h (N, D) of prepared images (3, S, S)."""
        batch = pack({"images": torch.stack(images).numpy()}, self._device).to(self._device)["images"]
        if self._device.type == "cuda":
            batch = batch.contiguous(memory_format=torch.channels_last)
        h: Tensor = self._encoder(batch)
        return h.float()
