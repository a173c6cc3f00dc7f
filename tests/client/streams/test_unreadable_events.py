"""An event that cannot be read never ends a stream that the run itself can complete."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, StreamInterrupted
from openai_runs.types.events import MessageDeltaEvent
from tests.client.broadcaster import Broadcaster, delta, frame, message_json
from tests.support import Action, Answer, HostileServer, Received

TEXT = "Hello wörld"
FIRST_DELTA, LAST_DELTA, COMPLETED, STEP_COMPLETED, RUN_COMPLETED = 7, 10, 11, 12, 13
"""Places of frames in the run's stream."""


class Station:
    """A run whose stream has some other frames; counts what is asked beside it."""

    def __init__(self, *, able: bool) -> None:
        """Stream as a server that resumes and knows idempotency keys, or as one that does not."""
        self.broadcaster = Broadcaster(resumes=able, keys=able)
        self.frames: list[bytes] = self.broadcaster.frames
        self.has_run = True
        self.asked: list[str] = []

    def __call__(self, request: Received) -> Action:
        """Carry the request out."""
        self.asked.append(f"{request.method} {request.path.rpartition('/')[2].partition('?')[0]}")
        if request.method == "GET" and not self.has_run:
            return Answer(404, {"error": {"message": "no such run"}})
        return self.broadcaster(request)


@pytest.fixture(params=["able", "plain"])
def station(request: pytest.FixtureRequest) -> Station:
    """Return a server's side of a run."""
    return Station(able=request.param == "able")


@pytest.fixture
async def client(station: Station) -> AsyncIterator[AsyncClient]:
    """Yield a client of it that does not pause."""
    async with (
        HostileServer(station) as server,
        AsyncClient(
            server.url,
            "k",
            retry=RetryPolicy(initial=0, maximum=0),
            poll=PollPolicy(initial=0, maximum=0),
        ) as one,
    ):
        yield one


async def played(client: AsyncClient) -> tuple[list[str], str, Any]:
    """Return the names of all events, the text of all deltas, and the result."""
    with anyio.fail_after(20):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            events = [event async for event in stream]
            result = await stream.result()
    text = "".join(event.data.text for event in events if isinstance(event, MessageDeltaEvent))
    return [event.event for event in events], text, result


def twice(name: str, data: Any) -> bytes:
    """Return an event whose data was encoded twice."""
    return frame(name, json.dumps(data))


OTHER_WRAPPINGS = {
    "encoded twice": twice("thread.message.delta", delta("Hel")),
    "encoded three times": twice("thread.message.delta", json.dumps(delta("Hel"))),
    "in a list": frame("thread.message.delta", [delta("Hel")]),
    "in an envelope of the same name": frame(
        "thread.message.delta", {"event": "thread.message.delta", "data": delta("Hel")}
    ),
    "an envelope encoded twice": twice(
        "message", {"event": "thread.message.delta", "data": delta("Hel")}
    ),
    "an envelope without a name, its data encoded twice": frame(
        "message", {"event": "thread.message.delta", "data": json.dumps(delta("Hel"))}
    ),
    "with data: twice": b"event: thread.message.delta\ndata: data: "
    + json.dumps(delta("Hel")).encode()
    + b"\n\n",
    "with a byte that is no UTF-8 beside the text": frame(
        "thread.message.delta", {**delta("Hel"), "note": "??"}
    ).replace(b"??", b"\xff"),
}


@pytest.mark.parametrize("one", OTHER_WRAPPINGS.values(), ids=OTHER_WRAPPINGS)
async def test_event_in_another_wrapping_is_read(
    station: Station, client: AsyncClient, one: bytes
) -> None:
    """It is the event like any other, and nothing is asked beside the stream."""
    station.frames[FIRST_DELTA] = one

    names, text, result = await played(client)

    assert names == station.broadcaster.names
    assert text == result.text == TEXT
    assert station.asked == ["POST runs"]
    assert not result.recovered


NOTHING = {
    "empty data": b"event: %s\ndata: \n\n",
    "null": b"event: %s\ndata: null\n\n",
    "an empty object": b"event: %s\ndata: {}\n\n",
    "half of it": b'event: %s\ndata: {"id": "msg_1", "del\n\n',
    "a number for the id": b'event: %s\ndata: {"id": 7, "delta": []}\n\n',
    "not UTF-8": b"event: %s\ndata: \xff\xfe\n\n",
    "too deep": b"event: %s\ndata: " + b"[" * 100_000 + b"\n\n",
}


@pytest.mark.parametrize("shape", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("place", range(RUN_COMPLETED + 1))
async def test_stream_is_whole_whichever_event_cannot_be_read(
    station: Station, client: AsyncClient, shape: bytes, place: int
) -> None:
    """The text is whole at the end and nothing comes twice, whatever takes the event's place."""
    station.frames[place] = shape % station.broadcaster.names[place].encode()

    names, text, result = await played(client)

    assert result.text == TEXT
    assert result.run.status == "completed"
    assert [message.status for message in result.messages] == ["completed"]
    assert [step.status for step in result.steps] == ["completed"]
    assert names.count("thread.run.completed") == names.count("thread.message.completed") == 1
    if place in {FIRST_DELTA, FIRST_DELTA + 1, FIRST_DELTA + 2}:
        assert len(text) < len(TEXT)  # the rest is no continuation of what came
    else:
        assert text == TEXT


@pytest.mark.parametrize("shape", NOTHING.values(), ids=NOTHING)
async def test_event_after_the_run_has_ended_costs_nothing(
    station: Station, client: AsyncClient, shape: bytes
) -> None:
    """What cannot be read there leaves nothing open: no request is made for it."""
    station.frames.append(shape % b"thread.run.completed")
    station.has_run = False

    names, text, result = await played(client)

    assert names == station.broadcaster.names
    assert text == result.text == TEXT
    assert station.asked == ["POST runs"]


async def test_delta_that_cannot_be_read_costs_no_request(
    station: Station, client: AsyncClient
) -> None:
    """Its message says at its end what it was."""
    station.frames[LAST_DELTA] = b"event: thread.message.delta\ndata: {bro\n\n"
    station.has_run = False

    _, text, result = await played(client)

    assert text == result.text == TEXT
    assert station.asked == ["POST runs"]


async def test_only_the_first_event_of_a_stream_can_be_read(
    station: Station, client: AsyncClient
) -> None:
    """The run is polled, and its events are made of what is stored."""
    names = station.broadcaster.names[1:]
    station.frames[1:] = [b"event: %s\ndata: {bro\n\n" % name.encode() for name in names]

    _, text, result = await played(client)

    assert text == result.text == TEXT
    assert result.recovered


async def test_stream_is_an_error_where_the_run_cannot_be_fetched(
    station: Station, client: AsyncClient
) -> None:
    """It says so, and has the ids and the text so far."""
    station.frames[RUN_COMPLETED] = b"event: thread.run.completed\ndata: {bro\n\n"
    station.has_run = False

    with pytest.raises(StreamInterrupted, match="recovery failed") as caught:
        await played(client)

    assert caught.value.run_id == "run_1"
    assert caught.value.text_so_far == TEXT


@pytest.mark.parametrize("data", ["", "null", "{}"])
async def test_error_event_that_says_nothing_ends_no_run(
    station: Station, client: AsyncClient, data: str
) -> None:
    """The stream reconnects, or the run is polled, as after a lost connection."""
    station.frames.insert(COMPLETED, f"event: error\ndata: {data}\n\n".encode())

    _, text, result = await played(client)

    assert text == result.text == TEXT
    assert result.recovered


async def test_event_that_is_too_large_is_fetched(station: Station, client: AsyncClient) -> None:
    """The connection is given up, and the run is polled."""
    station.frames[COMPLETED] = b"event: thread.message.completed\ndata: " + b" " * (33 << 20)

    _, text, result = await played(client)

    assert text == result.text == TEXT
    assert result.recovered


async def test_events_passed_over_are_logged_without_their_data(
    station: Station, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A line each names the event and what is wrong with it."""
    station.frames[FIRST_DELTA] = b'event: thread.message.delta\ndata: {"id": "s3cret"}\n\n'

    with caplog.at_level(logging.WARNING, "openai_runs"):
        _, _, result = await played(client)

    (record,) = caplog.records
    ids = {"run_id": result.run.id, "thread_id": result.run.thread_id}
    assert ids.items() <= vars(record).items()
    line = record.getMessage()
    assert "thread.message.delta" in line
    assert "missing required field" in line
    assert "s3cret" not in line


HALVES: dict[str, Sequence[str]] = {
    "one pair": ("Hi \ud83d", "\ude00!"),
    "two pairs in a row": ("\ud83d", "\ude00\ud83d", "\ude00"),
    "nothing else": ("\ud83d", "\ude00"),
    "a lone first half": ("a \ud83d", "b"),
    "a lone half at the end": ("a ", "\ud83d"),
    "a lone second half": ("\ude00", " a"),
}


@pytest.mark.parametrize("pieces", HALVES.values(), ids=HALVES)
async def test_text_cut_within_a_character_is_the_character(
    station: Station, client: AsyncClient, pieces: Sequence[str]
) -> None:
    """Deltas, snapshot and JSON have it; half of one that has no other half is U+FFFD."""

    def ascii_frame(name: str, data: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()

    whole = "".join(pieces)
    expected = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    station.frames[FIRST_DELTA : COMPLETED + 1] = [
        *(ascii_frame("thread.message.delta", delta(piece)) for piece in pieces),
        ascii_frame("thread.message.completed", message_json(whole, "completed")),
    ]

    with anyio.fail_after(20):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            events = [event async for event in stream]
            result = await stream.result()

    deltas = [event for event in events if isinstance(event, MessageDeltaEvent)]
    assert "".join(event.data.text for event in deltas) == expected
    assert result.text == stream.snapshot.text == expected
    assert all(json.dumps(event.to_dict(), ensure_ascii=False).encode() for event in events)
    assert station.asked == ["POST runs"]


async def test_character_cut_by_a_lost_connection_is_whole(
    station: Station, client: AsyncClient
) -> None:
    """Its second half comes over another connection, or with what is stored."""
    able = station.broadcaster.resumes
    halves = [
        frame("thread.message.delta", "?", f"1-{8 + number}" if able else "").replace(
            b'"?"', json.dumps(delta(half)).encode()
        )
        for number, half in enumerate(("\ud83d", "\ude00"))
    ]
    station.frames[FIRST_DELTA:COMPLETED] = halves
    station.broadcaster.text = "\U0001f600"
    station.frames[FIRST_DELTA + 2] = frame(
        "thread.message.completed", message_json("\U0001f600", "completed"), "1-10" if able else ""
    )
    head = sum(len(one) for one in station.frames[: FIRST_DELTA + 1])
    station.broadcaster.cuts = [head]

    _, text, result = await played(client)

    assert text == result.text == "\U0001f600"
