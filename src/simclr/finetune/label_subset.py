"""Training with few labels: the samples whose labels are used."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from simclr.core.errors import UserError
from simclr.core.params import NO_FILE
from simclr.core.printable import one_line
from simclr.data.sampling import Indices, drawn_by_class
from simclr.finetune.finetune_params import FinetuneParams, fraction_epochs


@dataclass(frozen=True)
class LabelSubset:
    """Some samples of train."""

    key: str
    """In reports, such as "10_percent"."""
    title: str
    """For people, such as "10 %"."""
    samples: Indices
    epochs: int
    """Of the fine-tuning on it."""


def label_subsets(
    parameters: FinetuneParams, labels: npt.NDArray[np.int64], names: Callable[[str], list[str]]
) -> Iterator[LabelSubset]:
    """The subsets of train that `parameters` ask for: by a list, or a fraction of each class.

    Args:
        labels: of train (N,).
        names: returns the paths of the images of train or val.

    Raises:
        UserError: as `listed_subset` and `names`.
    """
    if parameters.label_list != NO_FILE:
        samples, title = listed_subset(names("train"), names("val"), Path(parameters.label_list))
        yield LabelSubset("listed", title, samples, parameters.epochs[0])
        return
    for fraction, epochs in fraction_epochs(parameters):
        percent, samples = f"{100 * fraction:g}", label_subset(labels, fraction, parameters.seed)
        yield LabelSubset(f"{percent}_percent", f"{percent} %", samples, epochs)


def label_subset(labels: npt.NDArray[np.int64], fraction: float, seed: int) -> Indices:
    """`fraction` of the samples of each class, rounded, at least one, in ascending order.

    A subset is a part of every larger one with the same seed.
    """
    return drawn_by_class(labels, seed, lambda _, size: max(1, round(fraction * size)))


def listed_subset(names: Sequence[str], val: Sequence[str], path: Path) -> tuple[Indices, str]:
    """The samples of train whose images the text file `path` lists, one a line, in ascending order, and what was
    found in words.

    A line is the name of a file, as in Google's subsets of ImageNet (google-research/simclr, imagenet_subsets), or one
    of the paths. Images that are not in train, such as those of val, are left out.

    Args:
        names: the paths of the images of train (N).
        val: those of val.

    Raises:
        UserError: as `read_list`; or no line is of `names`, or one is the name of several images.
    """
    origin, lines = f"finetune.label_list: {path}", read_list(path)
    samples: dict[str, int] = {}
    files: set[str] = set()
    for sample, name in enumerate([*names, *val]):
        file = PurePosixPath(name).name
        if file in lines and file in files:
            raise UserError(f"{origin}: several images are called {one_line(file)}; list their paths")
        files.add(file)
        samples |= dict.fromkeys({name, file} & lines, sample)
    trained = sorted({sample for sample in samples.values() if sample < len(names)})
    if not trained:
        example = f"such as {one_line(names[0])}: it lists {one_line(min(lines))}"
        others = f"; {len(samples):,} of its names are in val" if samples else ""
        raise UserError(f"{origin} lists no image of train, {example}{others}")
    unknown = lines - samples.keys()
    others = f"; {len(unknown):,} of no image, such as {one_line(min(unknown))}" if unknown else ""
    return np.array(trained, np.int64), f"listed ({len(trained):,} of {len(lines):,} names{others})"


def read_list(path: Path) -> set[str]:
    """The lines of the text file `path`, of which there is one at least.

    Raises:
        UserError: it cannot be read, is no text in UTF-8, or empty.
    """
    origin = f"finetune.label_list: {path}"
    try:
        lines = {line.strip(" \t\r") for line in path.read_text(encoding="utf-8-sig").split("\n")} - {""}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UserError(f"{origin} cannot be read ({reason})") from error
    if not lines:
        raise UserError(f"{origin} is empty; it takes the name of an image in each line")
    return lines
