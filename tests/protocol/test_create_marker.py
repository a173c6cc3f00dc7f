"""The mark on a create: found again by it, shown to nobody."""

import msgspec
import pytest

from openai_runs._protocol.create_marker import (
    add_marker,
    find_marked,
    has_marker,
    strip_marker,
    strip_marker_from_event,
)
from openai_runs.types import ADOPTION_KEY, Run, RunEvent, UnknownItem


def run(run_id: str, metadata: dict[str, str] | None) -> Run:
    """Return a run with this metadata."""
    return Run(id=run_id, thread_id="thread_1", status="queued", metadata=metadata)


FIFTEEN = {f"k{n}": "v" for n in range(15)}


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}, FIFTEEN])
def test_mark_adds_one_pair(metadata: dict[str, str] | None) -> None:
    """The caller's pairs stay, and the caller's mapping is left alone."""
    before = dict(metadata or {})

    marked = add_marker(metadata, "k1")

    assert marked == {**before, ADOPTION_KEY: "k1"}
    assert (metadata or {}) == before


def test_mark_finds_no_room_beside_sixteen_pairs() -> None:
    """The API allows 16; the caller's come first."""
    assert add_marker({**FIFTEEN, "k15": "v"}, "k1") is None


def test_find_knows_its_own_run() -> None:
    """The run with this key, not another's, not an unreadable one without metadata."""
    mine = run("run_3", {ADOPTION_KEY: "k1"})
    others = [run("run_1", None), run("run_2", {ADOPTION_KEY: "k2"})]

    assert find_marked([*others, mine], "k1") is mine
    assert find_marked(others, "k1") is None


@pytest.mark.parametrize(
    ("item", "verdict"),
    [
        (UnknownItem(id="run_1"), False),
        (UnknownItem(id="run_1", metadata=5), False),
        (UnknownItem(id="run_1", metadata={ADOPTION_KEY: "k1"}), True),
        (None, False),
    ],
)
def test_carries_reads_whatever_came(item: object, verdict: bool) -> None:
    """An item that could not be read as a run may still carry the mark."""
    assert has_marker(item, "k1") is verdict


@pytest.mark.parametrize("metadata", [None, {}, {"a": "b"}, {"a": "b", ADOPTION_KEY: "k1"}])
def test_reveal_takes_the_mark_off(metadata: dict[str, str] | None) -> None:
    """What the caller gets holds the caller's pairs only."""
    expected = {k: v for k, v in (metadata or {}).items() if k != ADOPTION_KEY}

    shown = strip_marker(run("run_1", metadata))

    assert (shown.metadata or {}) == expected


def test_event_loses_the_mark_and_keeps_what_nobody_knows() -> None:
    """The run of an event, and the JSON it came in, have the caller's pairs only."""
    marked = run("run_1", {"a": "b", ADOPTION_KEY: "k"})
    wire = {**msgspec.to_builtins(marked), "novel": 1}
    raw = msgspec.json.encode(wire)
    event = RunEvent(event="thread.run.created", raw=raw, data=msgspec.json.decode(raw, type=Run))

    revealed = strip_marker_from_event(event)

    assert revealed.data.metadata == {"a": "b"}
    assert msgspec.json.decode(revealed.raw) == {**wire, "metadata": {"a": "b"}}


def test_event_without_the_mark_is_left_alone() -> None:
    """The very same object comes back, its bytes with it."""
    event = RunEvent(event="thread.run.created", raw=b"{}", data=run("run_1", {"a": "b"}))

    assert strip_marker_from_event(event) is event
