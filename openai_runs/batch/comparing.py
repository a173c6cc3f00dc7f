"""What a file is to a batch: its checkpoint, or the rows that its results belong to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import digest_of, numbered_rows
from openai_runs.batch.status import APPLICATION, reading

__all__ = ["is_checkpoint", "read_rows"]

_HEADER: Final = 72
"""Bytes of a SQLite file up to the end of its `application_id`."""


def is_checkpoint(path: Path) -> bool:
    """Return whether the file is the checkpoint of a batch; nothing in it or beside it changes."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except OSError:
        return False  # whoever asks has more to say about it
    return header.startswith(b"SQLite format 3\0") and header[-4:] == APPLICATION.to_bytes(4)


def read_rows(
    path: str | Path, *, checkpoint: str | Path | None = None, id_column: str | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield custom id and values of each row of a CSV file, as `read_csv` reads it.

    For what stands beside the results: `dict(read_rows(path))[result.custom_id]` is the row.

    Args:
        path: The file.
        checkpoint: That of the batch: all rows are compared with those that were asked about before
            the first is yielded. None: nothing is compared, and a row that was inserted since
            shifts those after it, unless a column has the ids.
        id_column: The column that has the custom ids; None: as the checkpoint has it, or as
            `read_csv`.

    Raises:
        BatchError: A file cannot be read; a row has too many values or too few, or is not what was
            asked about; no row has a result, though there are some. A row that is not in the
            checkpoint is new, and no error.
    """
    if checkpoint is not None:
        id_column = _check_rows(Path(checkpoint), Path(path), id_column)
    for _, custom_id, row in numbered_rows(Path(path), id_column):
        yield custom_id, row


def _check_rows(checkpoint: Path, rows: Path, id_column: str | None) -> str | None:
    """Check that the results of a checkpoint belong to these rows; return the column of the ids."""
    with reading(checkpoint) as database:
        query = "SELECT value FROM meta WHERE name LIKE 'template %'"
        templates = [msgspec.json.decode(text) for (text,) in database.execute(query)]
        query = "SELECT custom_id, digest FROM items WHERE place IS NOT NULL"
        digests: dict[str, bytes] = dict(database.execute(query).fetchall())
        named = database.execute("SELECT value FROM meta WHERE name = 'id column'").fetchone()
    id_column = id_column or (named and named[0]) or None
    found = 0
    for number, custom_id, row in numbered_rows(rows, id_column):
        digest = digests.get(custom_id)
        found += digest is not None
        if digest and templates and digest not in {digest_of(one, row) for one in templates}:
            msg = (
                f"line {number} of {rows}, custom_id {custom_id!r:.100}, is not the row that was "
                "asked about: the file has changed since; give the one that the batch has read"
            )
            raise BatchError(msg)
    if digests and not found:
        msg = f"no row of {rows} has the id of a result: the results are of another file"
        raise BatchError(msg)
    return id_column
