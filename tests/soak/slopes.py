"""How fast a figure grows: slopes that a few strange samples do not bend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

__all__ = ["HOUR", "Limit", "Row", "judge", "slope", "table", "thinned"]

HOUR = 3600.0
_POINTS = 400
"""Samples that a slope is made of, at most: it takes the square of it."""


class Limit(NamedTuple):
    """What a figure may grow by in an hour."""

    figure: str
    """Such as `server rss`."""
    grows: float
    """In the figure's own unit."""
    noise: float
    """What it may have grown by in all, in however short a time."""
    unit: float = 1.0
    """What a number is divided by to be shown."""
    name: str = ""
    """The name of the unit."""


class Row(NamedTuple):
    """What came of one figure."""

    limit: Limit
    first: float
    """The median of the first fifth."""
    last: float
    """The median of the last fifth."""
    least: float
    most: float
    slope: float
    """Per hour."""

    @property
    def holds(self) -> bool:
        """Return whether it grows by no more than it may."""
        limit = self.limit
        return self.slope <= limit.grows or self.last - self.first <= limit.noise

    def cells(self) -> list[str]:
        """Return the row of the table."""
        limit = self.limit
        numbers = (self.first, self.last, self.least, self.most)
        shown = [f"{number / limit.unit:.1f}" for number in numbers]
        name = f"{limit.figure}, {limit.name}" if limit.name else limit.figure
        slopes = [f"{self.slope / limit.unit:+.2f}", f"{limit.grows / limit.unit:.1f}"]
        return [name, *shown, *slopes, "yes" if self.holds else "NO"]


def thinned(
    points: Sequence[tuple[float, float]], most: int = _POINTS
) -> list[tuple[float, float]]:
    """Return at most so many of the points, the same number of places apart."""
    step = max(1, -(-len(points) // most))
    return list(points[::step])


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much a figure grows in an hour: Theil and Sen's median of all pairs' slopes.

    Args:
        points: Seconds, and the figure then; with fewer than two moments nothing grows.
    """
    pairs = combinations(thinned(points), 2)
    slopes = [(b - a) / (at - began) for (began, a), (at, b) in pairs if at != began]
    return median(slopes) * HOUR if slopes else 0.0


def judge(limit: Limit, points: Sequence[tuple[float, float]]) -> Row:
    """Return what came of a figure.

    Raises:
        ValueError: There is no sample of it.
    """
    if not points:
        message = f"no sample of {limit.figure}"
        raise ValueError(message)
    values = [value for _, value in points]
    fifth = max(1, len(values) // 5)
    return Row(
        limit=limit,
        first=median(values[:fifth]),
        last=median(values[-fifth:]),
        least=min(values),
        most=max(values),
        slope=slope(points),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    head = ["figure", "first", "last", "least", "most", "per hour", "may grow", "holds"]
    lines = [head, ["---", *["---:"] * 6, "---"], *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
