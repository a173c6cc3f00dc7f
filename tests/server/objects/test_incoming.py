"""Lines of an import: whatever they hold, they are kept whole or named as what cannot be."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from openai_runs.server.objects.incoming import IncomingThread, MisfitError, parse
from openai_runs.types.base import ACTIVE_STATUSES
from tests.samples import load

THREAD = load("archives/single/thread_1.json")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside."""
    inner: Any = enumerate(value) if isinstance(value, list) else getattr(value, "items", list)()
    found = [path] if path else []
    for key, each in inner:
        found += places(each, (*path, key))
    return found


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A thread of which something is something else, or something is added."""
    line = copy.deepcopy(THREAD)
    for _ in range(draw(st.integers(1, 3))):
        *parts, last = draw(st.sampled_from(places(line)))
        place = line
        for part in parts:
            place = place[part]
        if draw(st.booleans()) and isinstance(place, dict):
            last = draw(st.text(max_size=5))
        place[last] = draw(VALUES | st.sampled_from(["thread_1", "queued", "run_1", "in_progress"]))
    return line


@given(damaged())
def test_damaged_line_is_kept_or_named(line: Any) -> None:
    """Nothing else is raised; what is kept can be written, is over, and gives the same again."""
    text = msgspec.json.encode(line)
    try:
        found = parse(text)
    except MisfitError:
        return

    assert isinstance(found, IncomingThread)
    assert all(each.run.status not in ACTIVE_STATUSES for each in found.runs)
    assert msgspec.json.encode(found)
    assert parse(text) == found
    again = {
        "thread": found.thread,
        "messages": found.messages,
        "runs": [
            {**msgspec.to_builtins(each.run), "steps": msgspec.to_builtins(each.steps)}
            for each in found.runs
        ],
    }
    kept = parse(msgspec.json.encode(again))
    assert isinstance(kept, IncomingThread)
    assert (kept.thread, kept.messages, kept.runs) == (found.thread, found.messages, found.runs)
    assert kept.left_out == kept.ended == []
