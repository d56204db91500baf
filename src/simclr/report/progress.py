"""Progress bars with rate and time left: alive in a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int, unit: str, title: str, *, shown: bool = True) -> "tqdm[Any]":
    """A tqdm bar on stderr over `total` of `unit`; counts nothing and shows nothing unless `shown`."""
    alive = sys.stderr.isatty()
    return tqdm(
        total=total,
        unit=unit,
        desc=title,
        disable=not shown,
        mininterval=0.1 if alive else 15,
        maxinterval=0.5 if alive else 30,
        file=sys.stderr,
        ascii=not alive,
    )
