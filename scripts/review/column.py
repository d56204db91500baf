"""What a revision left, as a column of the page."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from review import results
from review.revision import Revision


@dataclass(frozen=True)
class Column:
    """A revision, and what it left."""

    revision: Revision

    @property
    def name(self) -> str:
        return self.revision.name

    @cached_property
    def metrics(self) -> dict[str, float]:
        return results.metrics(self.revision)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        return results.parameters(self.revision)

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        paths = [path for path in self.revision.files("reports") if path.endswith(".png")]
        return {path: content for path, content in self.revision.read_all(paths).items() if content}

    @cached_property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """The points (epoch, value) by quantity, in the tables of reports/pretrain that have a column epoch."""
        curves: dict[str, list[tuple[float, float]]] = {}
        for path in self.revision.files("reports/pretrain"):
            rows = results.table(self.revision, path) if path.endswith(".csv") else []
            for quantity in rows[0] if rows and "epoch" in rows[0] else ():
                if quantity != "epoch":
                    points = [(results.number(row["epoch"]), results.number(row[quantity])) for row in rows]
                    curves[quantity] = [(x, y) for x, y in points if x is not None and y is not None]
        return curves
