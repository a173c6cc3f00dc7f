"""The marker of a create, which finds a run whose answer was lost.

The marker is one of the 16 metadata pairs. It is left out when the caller uses all 16, and
stripped where an answer or an event is decoded, so that callers do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from openai_runs.types.base import ADOPTION_KEY
from openai_runs.types.events import RunEvent
from openai_runs.types.runs import Run

__all__ = [
    "add_marker",
    "find_marked",
    "has_marker",
    "strip_marker",
    "strip_marker_from_event",
    "strip_markers",
]

_MAX_PAIRS: Final = 16

R = TypeVar("R")


def add_marker(metadata: Mapping[str, str] | None, key: str) -> dict[str, str] | None:
    """Return the metadata with the marker added, or None if all 16 pairs are in use.

    >>> add_marker({"a": "b"}, "k1")
    {'a': 'b', 'openai_runs_key': 'k1'}
    """
    pairs = dict(metadata or {})
    if len(pairs) >= _MAX_PAIRS:
        return None
    return {**pairs, ADOPTION_KEY: key}


def has_marker(run: object, key: str) -> bool:
    """Return whether `run` was created with `key`."""
    metadata = getattr(run, "metadata", None)
    return isinstance(metadata, Mapping) and metadata.get(ADOPTION_KEY) == key


def find_marked(runs: Iterable[Run], key: str) -> Run | None:
    """Return the run that was created with `key`, or None."""
    return next((run for run in runs if has_marker(run, key)), None)


def strip_marker(run: R) -> R:
    """Return `run` without the marker."""
    metadata = getattr(run, "metadata", None)
    if metadata and isinstance(metadata, dict):
        metadata.pop(ADOPTION_KEY, None)
    return run


def strip_markers(runs: Iterable[object]) -> None:
    """Remove the marker from each of the runs."""
    for run in runs:
        metadata = getattr(run, "metadata", None)
        if metadata and isinstance(metadata, dict):
            metadata.pop(ADOPTION_KEY, None)


def strip_marker_from_event(event: RunEvent) -> RunEvent:
    """Return `event` without the marker in its run and its JSON."""
    if ADOPTION_KEY not in (event.data.metadata or {}):
        return event
    strip_marker(event.data)
    wire = msgspec.json.decode(event.raw)
    wire["metadata"].pop(ADOPTION_KEY)
    return msgspec.structs.replace(event, raw=msgspec.json.encode(wire))
