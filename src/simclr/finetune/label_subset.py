"""Training with few labels: the samples whose labels are used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from simclr.core import params_file
from simclr.core.errors import UserError
from simclr.core.params import NO_FILE
from simclr.core.printable import one_line
from simclr.core.randomness import permutation
from simclr.data.sampling import Indices
from simclr.finetune.finetune_params import FinetuneParams, fraction_epochs


@dataclass(frozen=True)
class LabelSubset:
    """Some samples of train."""

    key: str
    """In reports, such as "10_percent"."""
    samples: Indices
    epochs: int
    """Of the fine-tuning on it."""

    @property
    def title(self) -> str:
        return self.key.replace("_percent", " %")


def label_subsets(
    parameters: FinetuneParams, labels: npt.NDArray[np.int64], names: Sequence[str] | None
) -> Iterator[LabelSubset]:
    """The subsets of train that `parameters` ask for: by a list, or a fraction of each class.

    Args:
        labels: of train (N,).
        names: the paths of its images, if they are files.

    Raises:
        UserError: as `listed_subset`; or there is a list, and the images are no files.
    """
    if parameters.label_list != NO_FILE:
        if names is None:
            raise UserError(
                f"{params_file.FILE}: finetune.label_list is for images that are files, as with fetch.source: folder"
            )
        yield LabelSubset("listed", listed_subset(names, Path(parameters.label_list)), parameters.epochs[0])
        return
    for fraction, epochs in fraction_epochs(parameters):
        yield LabelSubset(f"{100 * fraction:g}_percent", label_subset(labels, fraction, parameters.seed), epochs)


def label_subset(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """`fraction` of the samples of each class, rounded, at least one, in ascending order.

    A subset is a part of every larger one with the same seed.
    """
    samples = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        samples.append(members[permutation(len(members), seed, int(label))[:count]])
    return np.sort(np.concatenate(samples))


def listed_subset(names: Sequence[str], path: Path) -> Indices:
    """The samples whose images the text file `path` lists, one a line, in ascending order.

    A line is the name of a file, as in Google's subsets of ImageNet (google-research/simclr, imagenet_subsets), or one
    of the paths `names` (N). Images that are not among them, as those of val, are left out.

    Raises:
        UserError: the file cannot be read, lists no image of `names`, or a name that several of them have.
    """
    origin = f"finetune.label_list: {path}"
    try:
        lines = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UserError(f"{origin} cannot be read ({reason})") from error
    samples: dict[str, int] = {}
    for sample, name in enumerate(names):
        file = PurePosixPath(name).name
        if file in lines and file in samples:
            raise UserError(f"{origin}: several images are called {one_line(file)}; list their paths")
        samples |= dict.fromkeys({name, file} & lines, sample)
    if not samples:
        example = f"it lists {one_line(min(lines))}" if lines else "it is empty"
        raise UserError(f"{origin} lists no image of train, such as {one_line(names[0])}: {example}")
    return np.unique(np.fromiter(samples.values(), np.int64))
