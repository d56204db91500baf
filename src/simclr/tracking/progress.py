"""Progress bars with rate and time left: live in a terminal, an occasional line in a log."""

import sys
from typing import Any, TypeAlias

from tqdm import tqdm

Bar: TypeAlias = "tqdm[Any]"


def bar(total: int, unit: str, title: str, *, shown: bool = True, done: int = 0) -> Bar:
    """A tqdm bar on stderr over `total` of `unit`, starting at `done`; hidden unless `shown`."""
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit=unit,
        desc=title,
        disable=not shown,
        mininterval=0.1 if is_terminal else 15,
        maxinterval=0.5 if is_terminal else 30,
        file=sys.stderr,
        ascii=not is_terminal,
    )
