"""Markdown that what it quotes cannot break out of.

A comment is posted with a token, and quotes what the author of a pull request can write: names of classes and of
parameters, and their values.
"""

import re
from collections.abc import Sequence

LONGEST = 65_536
"""Characters of a comment on GitHub."""


def code(text: str, longest: int = 200) -> str:
    """`text`, or its first characters, as one line of code, in which nothing is markup, a link or a mention, and
    no character turns the direction of writing."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    line = f"{line[:longest]}..." if len(line) > longest else line
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    # a bar ends a cell even within code
    return "\n".join(f"| {' | '.join(cell.replace('|', f'{chr(92)}|') for cell in cells)} |" for cells in lines)


def details(summary: str, body: str) -> str:
    """`body` folded up behind a `summary`, which is no more than words."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def cut(text: str, longest: int = LONGEST) -> str:
    """`text`, or as many of its first lines as a comment holds."""
    if len(text) <= longest:
        return text
    rest = "\n\n(cut here: a comment holds no more)\n"
    return text[: longest - len(rest)].rpartition("\n")[0] + rest
