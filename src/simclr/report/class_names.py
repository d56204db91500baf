"""Class names as they stand in pictures: of any length, with any character."""

from collections.abc import Sequence

from simclr.report.figure import has_letters


def drawable(classes: Sequence[str]) -> list[str]:
    """The names that the font has all letters of; the label instead of each other."""
    return [name if has_letters(name) else f"#{label}" for label, name in enumerate(classes)]


def short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip(" ,") + "…"
