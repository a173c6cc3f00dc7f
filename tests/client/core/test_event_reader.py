"""Events as a reader returns them: without the create marker, and otherwise as they were sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openai_runs import AsyncClient
from openai_runs.types import Event, RunEvent
from openai_runs.types.base import ADOPTION_KEY
from tests.client.broadcaster import DONE, HEAD, frame
from tests.support import Action, HostileServer, Raw, Received, run_json

MARKED = run_json(metadata={"a": "b", ADOPTION_KEY: "key-1"}, novel=1)
COMPLETED = run_json("completed", metadata={ADOPTION_KEY: "key-1"})
SPEAKING = {
    "id": "msg_1",
    "object": "thread.message.delta",
    "delta": {
        "content": [{"index": 0, "type": "text", "text": {"value": f"What is {ADOPTION_KEY}?"}}]
    },
}
LATER = {"id": "run_1", "object": "thread.novelty", "metadata": {ADOPTION_KEY: "key-1"}}


async def events_of(*frames: bytes) -> list[Event]:
    """Return the events of a stream that sends these frames."""

    def answer(request: Received) -> Action:
        return Raw(HEAD + b"\r\n" + b"".join((*frames, DONE)))

    async with (
        HostileServer(answer) as server,
        AsyncClient(server.url, "k") as client,
        client.runs.stream("thread_1", assistant_id="asst_1") as stream,
    ):
        return [event async for event in stream]


CREATED = {
    "named": frame("thread.run.created", MARKED),
    "in an envelope": frame("message", {"event": "thread.run.created", "data": MARKED}),
    "of a later status": frame("thread.run.pondering", MARKED),
}


@pytest.mark.parametrize("first", CREATED.values(), ids=CREATED)
async def test_run_of_an_event_carries_no_create_marker(first: bytes) -> None:
    """Neither the run nor the JSON it came in; all else stays, also what nobody knows."""
    created, completed = await events_of(first, frame("thread.run.completed", COMPLETED))

    assert isinstance(created, RunEvent)
    assert isinstance(completed, RunEvent)
    assert created.data.metadata == {"a": "b"}
    assert msgspec.json.decode(created.raw) == {**MARKED, "metadata": {"a": "b"}}
    assert completed.data.metadata == {}
    assert ADOPTION_KEY.encode() not in created.raw + completed.raw


@pytest.mark.parametrize(
    ("name", "data"),
    [("thread.message.delta", SPEAKING), ("thread.novelty.created", LATER)],
    ids=["text that names it", "event nobody knows"],
)
async def test_event_of_no_run_stays_as_it_was_sent(name: str, data: dict[str, Any]) -> None:
    """Whoever talks about the marker is not cut short."""
    _, spoken, _ = await events_of(
        frame("thread.run.created", MARKED),
        frame(name, data),
        frame("thread.run.completed", COMPLETED),
    )

    assert msgspec.json.decode(spoken.raw) == data
