"""`openai-runs batch table`: the results of a batch as CSV, for a spreadsheet."""

import csv
import io
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from openai_runs._cli.ending import Stop
from openai_runs._cli.outputs import print_piece, printable, say
from openai_runs.batch import BatchError, BatchResult, read_results, read_rows, status
from openai_runs.config import MAX_CSV_VALUE

__all__ = ["print_table"]

_ADDED: Final = ("answer", "error", "status")
"""Columns beside those of the rows."""
_PENDING: Final = "pending"
"""Status of a row without an outcome."""
_BOM: Final = "\ufeff"
"""By which spreadsheets know UTF-8."""


def print_table(checkpoint: Path, rows: Path | None) -> int:
    """Print what came of each line as a row of CSV, beside the row that was asked about.

    Raises:
        Stop: A file cannot be read, or the rows are not those that were asked about.
        Closed: Nobody reads it.
    """
    csv.field_size_limit(MAX_CSV_VALUE)  # for the whole process, which is ours
    try:
        results = _results(checkpoint)
        found = None if rows is None else read_rows(rows, checkpoint=checkpoint)
        lines = _plain(results) if found is None else _beside(rows, found, results)
        before = "" if sys.stdout.isatty() else _BOM
        for line in lines:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(line)
            print_piece(before + text.getvalue())
            before = ""
    except BatchError as error:
        raise Stop(printable(str(error))) from error
    return 0


def _results(checkpoint: Path) -> Iterator[BatchResult]:
    found = status(checkpoint)
    return iter(()) if found.out is None else read_results(found.out, errors=found.errors)


def _cells(result: BatchResult | None) -> tuple[str, str, str]:
    """Return the values of the added columns."""
    if result is None:
        return "", "", _PENDING
    if result.error is None:
        return result.text, "", "completed"
    return result.text, result.error.message, "failed"


def _added(columns: Collection[str]) -> list[str]:
    """Return the names of the added columns, with a number where the rows have such a name.

    >>> _added(["answer", "answer_2", "q"])
    ['answer_3', 'error', 'status']
    """
    numbered = ([name, *(f"{name}_{n}" for n in range(2, len(columns) + 3))] for name in _ADDED)
    return [next(one for one in names if one not in columns) for names in numbered]


def _plain(results: Iterable[BatchResult]) -> Iterator[Iterable[str]]:
    yield "custom_id", *_ADDED
    for result in results:
        yield result.custom_id, *_cells(result)


def _beside(
    path: Path | None, rows: Iterable[tuple[str, dict[str, str]]], results: Iterable[BatchResult]
) -> Iterator[Iterable[str]]:
    """Yield the rows in their order; what has none is counted on standard error."""
    left = {result.custom_id: result for result in results}
    is_first = True
    for custom_id, row in rows:
        if is_first:
            yield *row, *_added(row)
            is_first = False
        yield *row.values(), *_cells(left.pop(custom_id, None))
    if left:
        say(f"left out: {len(left):,} of the results, whose ids no row of {path} has", dim=False)
