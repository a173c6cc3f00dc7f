"""What a file is to a batch: its checkpoint, or the rows that its results belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from openai_runs.batch.checkpoint import APPLICATION, reading
from openai_runs.batch.errors import BatchError
from openai_runs.batch.inputs import digest_of, numbered_rows

__all__ = ["check_rows", "is_checkpoint"]

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


def check_rows(checkpoint: str | Path, rows: str | Path) -> None:
    """Check that the results of a checkpoint belong to the rows of this CSV file.

    A row that is not in the checkpoint is new, and no error.

    Raises:
        BatchError: A row is not what was asked about; no row has a result, though there are
            some; a file cannot be read.
    """
    path = Path(checkpoint)
    with reading(path) as database:
        query = "SELECT value FROM meta WHERE name LIKE 'template %'"
        templates = [msgspec.json.decode(text) for (text,) in database.execute(query)]
        query = "SELECT custom_id, digest FROM items WHERE place IS NOT NULL"
        digests: dict[str, bytes] = dict(database.execute(query).fetchall())
    found = 0
    for number, custom_id, row in numbered_rows(Path(rows)):
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
