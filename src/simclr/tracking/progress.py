"""Progress bars with rate and time left: alive in a terminal, a line now and then in a log."""

import sys
from typing import Any, TypeAlias

from tqdm import tqdm

Bar: TypeAlias = "tqdm[Any]"


def bar(total: int, unit: str, title: str, *, shown: bool = True, done: int = 0) -> Bar:
    """A tqdm bar on stderr over `total` of `unit`, of which so many are `done`; shows nothing unless `shown`."""
    alive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=title,
        disable=not shown,
        mininterval=0.1 if alive else 15,
        maxinterval=0.5 if alive else 30,
        file=sys.stderr,
        ascii=not alive,
    )
