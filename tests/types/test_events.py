"""Events of a stream: their names are the described ones, and they show what they say."""

from typing import Any

import msgspec
import pytest

from openai_runs.types import EventName, Run, RunEvent, Thread, ThreadEvent, UnknownEvent
from openai_runs.types.events import StreamEvent
from tests.openapi import SCHEMAS

RUN = Run(id="run_1", thread_id="thread_1", status="queued")


def described(schema: Any) -> set[str]:
    """Return the event names that a schema has, at any depth of choice."""
    if "$ref" in schema:
        return described(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "oneOf" in schema:
        return set().union(*(described(choice) for choice in schema["oneOf"]))
    return set(schema["properties"]["event"]["enum"])


def test_names_are_the_described_ones() -> None:
    """25 names: none is missing, none is made up."""
    names = {value for key, value in vars(EventName).items() if key.isupper()}

    assert names == described(SCHEMAS["AssistantStreamEvent"])
    assert len(names) == 25


def test_json_is_what_was_sent() -> None:
    """Unknown fields included; what the client made itself is written by our types."""
    sent = b'{"id": "thread_1",  "new": 1}'
    event = ThreadEvent(event="thread.created", raw=sent, data=Thread(id="thread_1"))

    assert event.json is sent
    assert event.to_dict() == {"event": "thread.created", "data": {"id": "thread_1", "new": 1}}
    assert event.model_dump() == event.to_dict()
    made = RunEvent(event="thread.run.queued", data=RUN)
    assert made.to_dict() == {"event": "thread.run.queued", "data": msgspec.to_builtins(RUN)}


@pytest.mark.parametrize(("id", "shown"), [("", ""), ("1-7", ", id='1-7'")])
def test_repr_shows_the_data_once(id: str, shown: str) -> None:
    """The JSON is not shown beside the object that was made of it."""
    event = UnknownEvent(event="banana", id=id, raw=b'{"a":1}', data={"a": 1})

    assert repr(event) == f"UnknownEvent(event='banana', data={{'a': 1}}{shown})"


def test_event_without_data_of_its_own_kind() -> None:
    """What all events have can be used without knowing which one it is."""
    assert StreamEvent(event="x").to_dict() == {"event": "x", "data": None}
