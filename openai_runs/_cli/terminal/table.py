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
    """Return the rows under their head; on a terminal, the columns that it has place for.

    The last column is cut off where the screen ends; others are shown whole, or left out.

    Args:
        head: Names of the columns.
        rows: A text for each of them; what is not ours need not be printable.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _NO_TERMINAL
    cells = [[" ".join(printable(text).split()) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(head, *cells, strict=True)]
    drawn = Table.grid(padding=(0, _GAP))
    shown = _fitting(widths, cell_len(head[-1]), console.width)
    for width in shown:
        drawn.add_column(no_wrap=True, width=width)
    drawn.add_row(*(Text(name, style="dim") for name in head[: len(shown)]))
    for row in cells:
        texts = row[: len(shown)]
        drawn.add_row(*(Text(text, no_wrap=True, overflow="ellipsis") for text in texts))
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _fitting(widths: Sequence[int], least: int, screen: int) -> list[int]:
    """Return the widths of the columns that fit; the first one always does.

    `least`: columns that the last one, which can be cut off, needs.

    >>> _fitting([28, 31, 9, 19, 4], 5, 80), _fitting([31, 19, 60], 8, 80)
    ([28, 31, 9], [31, 19, 26])
    """
    shown = [widths[0]]
    left = screen - widths[0]
    for number, width in enumerate(widths[1:], 2):
        left -= _GAP
        is_cut = number == len(widths) and least <= left
        if width > left and not is_cut:
            break
        shown.append(min(width, left))
        left -= width
    return shown
