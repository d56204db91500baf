"""TensorBoard events of a run: `tensorboard --logdir runs` compares all runs by name.

Event files contain times and host names, so they are never outs of a stage.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from simclr.core import fingerprint, params_file, tables
from simclr.core.errors import UserError
from simclr.thumbnails import cells
from simclr.thumbnails.view_grid import view_grid

# Of the embedding projector, whose sprite (a square of all thumbnails) may have a side of 8192 px at most.
POINTS = 2000
THUMBNAIL = 32
_READ = 64
"""Images of the projector that are held at once as they are stored."""
FLUSH_SECONDS = 10


def run_folder(stage: str) -> Path:
    """The folder of this run's events: `$DVC_ROOT/runs/<experiment>/<stage>`.

    DVC sets DVC_ROOT to the main repository, in temporary and queued workspaces too, and DVC_EXP_NAME in
    experiments. Otherwise the root is the current folder, and the name "workspace-" with a fingerprint of the
    values in params.yaml, so that each set of parameters keeps its curves.

    Raises:
        UserError: params.yaml is needed but cannot be read.
    """
    root = Path(os.environ.get("DVC_ROOT", "."))
    name = os.environ.get("DVC_EXP_NAME")
    if not name:
        name = "workspace-" + fingerprint.of_values(tables.flat(params_file.read()))[:8]
    return root / "runs" / name / stage


class Board:
    """Writes TensorBoard events into a folder; without a folder (off rank 0) every method is a no-op.

    The events of an earlier run in the folder are removed, so that no curve is drawn twice. A run that resumes from a
    checkpoint restores its curves from `points`, so that they have no gap.

    Every method raises a UserError if the folder is not writable.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: Any = None
        self._points: list[tuple[str, int, float, float]] = []
        if folder is not None:
            # Not at the top: TensorBoard takes seconds to import.
            from torch.utils.tensorboard import SummaryWriter

            self._hook = threading.excepthook
            threading.excepthook = _ignore_disk_errors
            with self._catch_disk_errors():
                if folder.exists():
                    shutil.rmtree(folder)
                self._writer = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write all pending events, and close the file."""
        if self._writer is not None:
            try:
                with self._catch_disk_errors():
                    self._writer.close()
            finally:
                threading.excepthook = self._hook

    @contextmanager
    def _catch_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error.strerror or error})") from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point at `step` to each curve; tags such as "train/loss" are grouped by their first part."""
        if self._writer is None:
            return
        for tag, value in values.items():
            self._add(tag, step, value, time.time())

    def points(self) -> list[tuple[str, int, float, float]]:
        """All points so far: (tag, step, value, seconds since 1970)."""
        return list(self._points)

    def restore(self, points: Iterable[tuple[str, int, float, float]]) -> None:
        """Draw the `points` of an earlier board."""
        if self._writer is None:
            return
        for tag, step, value, seconds in points:
            self._add(tag, step, value, seconds)

    def _add(self, tag: str, step: int, value: float, seconds: float) -> None:
        self._points.append((tag, step, value, seconds))
        with self._catch_disk_errors():
            self._writer.add_scalar(tag, value, step, seconds)

    def views(self, views: Sequence[NDArray[np.uint8]]) -> None:
        """Add a grid of views, for each size uint8 (N, V, S, S, 3)."""
        if self._writer is not None:
            with self._catch_disk_errors():
                self._writer.add_image("views", view_grid(views), 0, dataformats="HWC")

    def picture(self, tag: str, file: Path) -> None:
        """Add a picture, of an image file."""
        if self._writer is not None:
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            with self._catch_disk_errors():
                self._writer.add_image(tag, pixels, 0, dataformats="HWC")

    def embedding(
        self,
        features: NDArray[np.floating],
        labels: Sequence[str],
        images: Callable[[NDArray[np.int64]], Sequence[NDArray[np.uint8]]],
        tag: str,
    ) -> None:
        """Add points for the embedding projector, with thumbnails of at most 32 x 32 pixels.

        Args:
            features: (N, D); of more than 2,000 points, 2,000 at equal distances in their order are shown.
            labels: N texts; the projector colors by them where there are at most 50 different ones.
            images: returns the images of points by their numbers, uint8 (H, W, 3) of any sizes; it is asked for a few
                at a time, since they may be large.
            tag: the name of the embedding.
        """
        if self._writer is None:
            return
        import torch

        shown = np.linspace(0, len(features) - 1, min(POINTS, len(features))).astype(np.int64)
        parts = np.split(shown, range(_READ, len(shown), _READ))
        sprite = np.stack([cells.fit(image, THUMBNAIL) for part in parts for image in images(part)])
        with self._catch_disk_errors():
            self._writer.add_embedding(
                # As text; five decimals make it half as large, and a picture shows no more.
                features[shown].astype(np.float64).round(5),
                [" ".join(labels[index].split()) for index in shown],
                torch.from_numpy(sprite).permute(0, 3, 1, 2) / 255,
                tag=tag,
            )

    def hparams(self, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Add a row to the HPARAMS page: the run's parameters and its final metrics.

        Args:
            parameters: nested; shown under dotted keys, lists as texts and None as "null".
            metrics: final values by tag; they become scalars of this run, so none may be the tag of a curve.
        """
        if self._writer is None:
            return
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]

        # SummaryWriter.add_hparams would open a run of its own, turn booleans into numbers, and describe all
        # runs in each of them: TensorBoard believes one of the descriptions and hides what it lacks. Without
        # any, it gathers the keys and the metrics of all runs.
        self.scalars(metrics, 0)
        # The empty trial names the row after the run; by default runs with equal parameters would share one.
        with self._catch_disk_errors():
            self._writer.file_writer.add_summary(hparams_pb(tables.flat(parameters), trial_id=""))


def _ignore_disk_errors(arguments: threading.ExceptHookArgs) -> None:
    """threading.excepthook that skips OSError: TensorBoard's writer raises it again on the next call, where `Board`
    turns it into a UserError.
    """
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
