"""The mark on a create of ours, by which a run whose answer was lost is found again.

The mark is one of the 16 metadata pairs. It is left out when the caller uses all 16, and
taken off every run that is handed to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from openai_runs.types.base import ADOPTION_KEY
from openai_runs.types.events import RunEvent
from openai_runs.types.runs import Run

__all__ = ["carries", "find", "mark", "reveal", "reveal_all", "reveal_event"]

_MAX_PAIRS: Final = 16

R = TypeVar("R")


def mark(metadata: Mapping[str, str] | None, key: str) -> dict[str, str] | None:
    """Return the metadata with the mark on it, or None if there is no room for one.

    >>> mark({"a": "b"}, "k1")
    {'a': 'b', 'openai_runs_key': 'k1'}
    """
    pairs = dict(metadata or {})
    if len(pairs) >= _MAX_PAIRS:
        return None
    return {**pairs, ADOPTION_KEY: key}


def carries(run: object, key: str) -> bool:
    """Return whether `run` was created with `key`."""
    metadata = getattr(run, "metadata", None)
    return isinstance(metadata, Mapping) and metadata.get(ADOPTION_KEY) == key


def find(runs: Iterable[Run], key: str) -> Run | None:
    """Return the run that was created with `key`, or None."""
    return next((run for run in runs if carries(run, key)), None)


def reveal(run: R) -> R:
    """Return `run` with the mark taken off."""
    metadata = getattr(run, "metadata", None)
    if isinstance(metadata, dict):
        metadata.pop(ADOPTION_KEY, None)
    return run


def reveal_all(runs: Iterable[object]) -> None:
    """Take the mark off each of the runs."""
    for run in runs:
        metadata = getattr(run, "metadata", None)
        if metadata and isinstance(metadata, dict):
            metadata.pop(ADOPTION_KEY, None)


def reveal_event(event: RunEvent) -> RunEvent:
    """Return `event` with the mark taken off its run, and out of its JSON."""
    if ADOPTION_KEY not in (event.data.metadata or {}):
        return event
    reveal(event.data)
    wire = msgspec.json.decode(event.raw)
    wire["metadata"].pop(ADOPTION_KEY)
    return msgspec.structs.replace(event, raw=msgspec.json.encode(wire))
