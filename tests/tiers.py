"""Rows of a table of which `poe test` takes a few, and `poe long` the rest."""

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["few"]


def few(rows: Iterable[Any], *, kept: Iterable[Any], rest: pytest.MarkDecorator) -> list[Any]:
    """Return all rows, those that are not kept for `poe test` with the mark of the long tier."""
    taken = list(kept)
    marked = [row if row in taken else pytest.param(row, marks=rest) for row in rows]
    assert len(marked) > len(taken) > 0
    return marked
