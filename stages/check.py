"""Refuse to run a stage while a value in params.yaml cannot be right, be it one of a later stage.

    python stages/check.py pretrain

is what `scripts/stage` runs before stages/pretrain.py. As a program of its own, which can do no more than refuse, it
belongs to no stage's dependencies: a change of what linear_eval allows must not run a pretraining again.
"""

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from simclr import failure, params
from simclr.failure import UserError

BETON = Path("data/beton")
AFTER_CONVERT = ("pretrain", "embed", "linear_eval")
"""The stages before which data/beton is that of params.yaml."""


def main() -> None:
    known = (BETON / "dataset.json").exists() and sys.argv[1] in AFTER_CONVERT
    passed = Path(os.environ.get("DVC_ROOT", "."), ".dvc", "tmp", f"checked-{digest(known)}")
    if passed.exists():
        return
    check(known)
    with suppress(OSError):  # of a repository that may not be written to, or of none
        passed.touch()


def digest(known: bool) -> str:
    """Of all that the check looks at: it is seconds of imports, which the same values need once."""
    content = hashlib.sha256()
    code = sorted(Path(params.__file__).parent.rglob("*.py"))
    for path in (params.FILE, Path(__file__), *code, *([BETON / "dataset.json"] if known else [])):
        with suppress(OSError):
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def check(known: bool) -> None:
    """Check every value, and with the data `known` against them.

    Raises:
        UserError: names the key, what was given and what is allowed.
    """
    from simclr import dataset, embed, pretrain
    from simclr.convert import ConvertParams
    from simclr.fetch import FetchParams
    from simclr.linear_eval import LinearEvalParams

    params.load("fetch", FetchParams)
    params.load("convert", ConvertParams)
    pretraining = params.load("pretrain", pretrain.PretrainParams)
    embedding = params.load("embed", embed.EmbedParams)
    params.load("linear_eval", LinearEvalParams)
    for name in params.read():
        if name not in ("fetch", "convert", "pretrain", "embed", "linear_eval"):
            raise UserError(f"{params.FILE}: {name} is no section of the pipeline")
    if known:
        source, train, test = (len(dataset.open_split(BETON, name)) for name in (pretraining.split, "train", "test"))
        pretrain.check(pretraining, source, train)
        embed.check(embedding, train, test)


if __name__ == "__main__":
    failure.run(sys.argv[1], main)
