"""Markdown that what it quotes cannot break out of: names of classes, and values of params.yaml."""

import re
from collections.abc import Iterable, Sequence


def code(text: object, longest: int = 200) -> str:
    """`text`, or its first characters, as one line of code, in which nothing is markup, HTML or a link."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    line = f"{line[:longest]}..." if len(line) > longest else line
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    # a bar ends a cell even within code
    return "\n".join(f"| {' | '.join(cell.replace('|', f'{chr(92)}|') for cell in cells)} |" for cells in lines)
