"""Class names in pictures: of any length, with any character."""

from collections.abc import Sequence

from simclr.report.figure import has_letters


def drawable(classes: Sequence[str]) -> list[str]:
    """The names, but "#" and the label for those with letters that the font lacks."""
    return [name if has_letters(name) else f"#{label}" for label, name in enumerate(classes)]


def shorten(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip(" ,") + "…"
