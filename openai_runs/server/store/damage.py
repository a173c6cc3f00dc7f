"""A row whose content cannot be read: where it is, and what is wrong with it.

Never what it holds: that may be anybody's words, and these errors are logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["DamagedRow", "describe_damage", "is_undecodable", "name_rows", "name_table"]

_IDS: Final = ("key", "id", "r", "run_id", "thread", "thread_id", "hash")
"""Parameters of statements that are ids, the nearest one to the row first."""
_TABLE: Final = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)", re.IGNORECASE)


class DamagedRow(Exception):  # noqa: N818 - a finding
    """What a row holds cannot be read. The message quotes none of it."""

    def __init__(self, table: str, row: str, damage: str) -> None:
        """Keep the table, the id of the row or what the row belongs to, and the damage."""
        super().__init__(
            f"table '{table}', row {row}: {damage}; restore the database from a backup, or delete "
            "what the row belongs to"
        )
        self.table = table
        self.row = row
        self.damage = damage


def describe_damage(error: Exception) -> str:
    """Return what is wrong with a text that could not be decoded.

    >>> describe_damage(msgspec.ValidationError("Invalid enum value 'a secret'"))
    'its JSON is not that of such an object'
    """
    if isinstance(error, msgspec.ValidationError):
        return "its JSON is not that of such an object"
    if isinstance(error, msgspec.DecodeError):
        return "it is not JSON"
    if isinstance(error, RecursionError):
        return "its JSON is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return "it is not a text"


def is_undecodable(error: Exception) -> bool:
    """Return whether the driver found a text that is not UTF-8; its message quotes the text."""
    return str(error).startswith("Could not decode")


def name_table(sql: str) -> str:
    """Return the table that a statement reads.

    >>> name_table("SELECT body FROM runs WHERE id = :key")
    'runs'
    """
    found = _TABLE.search(sql)
    return found[1] if found is not None else "unknown"


def name_rows(parameters: Mapping[str, Any]) -> str:
    """Return which rows a statement reads, by the id among its parameters.

    >>> name_rows({"thread_id": "thread_1", "rows": 21})
    "of 'thread_1'"
    """
    found = next((str(parameters[name]) for name in _IDS if name in parameters), None)
    return "of no known id" if found is None else f"of {ascii(found[:100])}"
