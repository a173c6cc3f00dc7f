"""Rows in columns: on a terminal no wider than it is, else as wide as they are."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openai_runs._cli.outputs import printable

__all__ = ["table"]

_GAP: Final = 2
"""Columns between two columns."""
_NO_TERMINAL: Final = 10_000
"""Columns where nobody reads along: nothing is cut off."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows under their head; the last column is cut off where the screen ends.

    Args:
        head: Names of the columns.
        rows: A text for each of them; what is not ours need not be printable.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _NO_TERMINAL
    cells = [[" ".join(printable(text).split()) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(head, *cells, strict=True)]
    left = console.width - sum(widths[:-1]) - _GAP * (len(head) - 1)
    drawn = Table.grid(padding=(0, _GAP))
    for width in widths[:-1]:
        drawn.add_column(no_wrap=True, width=width)
    drawn.add_column(no_wrap=True, width=min(widths[-1], max(left, 1)))
    drawn.add_row(*(Text(name, style="dim") for name in head))
    for row in cells:
        drawn.add_row(*(Text(text, no_wrap=True, overflow="ellipsis") for text in row))
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
