"""A relayed stream: what a browser gets of it, and how it begins and ends."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, relay
from openai_runs.errors import (
    ActiveRunError,
    NotFoundError,
    OpenAIRunsError,
    StreamInterrupted,
)
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import HEAD, Broadcaster, frame, step_json
from tests.relaying import INSTRUCTIONS, Paced, frames_of, paced, started, text_of, until_text
from tests.support import Answer, HostileServer, Raw, Stall
from tests.web.outages import Way, way_to

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}
GONE = {"error": {"message": "gone", "code": "stream_position_lost"}}
Told = tuple[Broadcaster, HostileServer, AsyncClient]


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    """Yield a run that is streamed whole, its server, and a client."""
    broadcaster = Broadcaster()
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        yield broadcaster, server, client


async def test_frames_tell_the_run_from_its_first_event_to_done(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A browser reads them as server-sent events, with the server's own names and places."""
    runs_server.reply("Hello.\nYou.")
    run = await started(runs_client)

    async with relay.sse(runs_client.runs.follow(run.id, thread_id=run.thread_id)) as frames:
        seen = frames_of([body async for body in frames])

    assert [one.event for one in seen] == [
        "thread.created",
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.completed",
        "done",
    ]
    assert text_of(seen) == "Hello.\nYou."
    assert all(one.id for one in seen)
    assert seen[-1].data == b"[DONE]"


async def test_browser_that_comes_back_anywhere_misses_nothing_and_sees_nothing_twice(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """With the last id it saw, it gets exactly the frames after that one."""
    runs_server.reply("Hello.")
    run = await started(runs_client)

    async def read(last: str | None) -> list[Any]:
        stream = runs_client.runs.follow(run.id, thread_id=run.thread_id, last_event_id=last)
        return frames_of([body async for body in relay.sse(stream)])

    whole = await read(None)
    for number, seen in enumerate(whole[:-2], 1):
        assert [one.data for one in await read(seen.id)] == [one.data for one in whole[number:]]


@pytest.mark.parametrize("failures", [0, 10], ids=["cut", "outage"])
async def test_browser_is_sent_that_the_connection_to_the_run_is_lost_and_is_back(
    failures: int,
) -> None:
    """At once; after an outage the words come again as they are written, without a gap."""
    model = Paced()
    async with paced(model) as client, way_to(str(client.base_url)) as way:
        run = await started(client)
        async with AsyncClient(way.url, api_key=CANARY_KEY, **AT_ONCE) as on_way:
            stream = on_way.runs.follow(run.id, thread_id=run.thread_id)
            async with relay.sse(stream, heartbeat=30) as frames:
                body = await until_text(frames, "Hello ")
                way.close()
                while not body.endswith(b"event: reconnecting\ndata: {}\n\n"):
                    body += await anext(frames)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_open_after, way, failures)
                    while b"event: reconnected\n" not in body:
                        body += await anext(frames)
                model.go_on.set()
                body += b"".join([one async for one in frames])
    seen = frames_of(body)

    assert text_of(seen) == model.text
    assert [one.event for one in seen if "connect" in one.event] == ["reconnecting", "reconnected"]
    assert seen[-1].event == "done"


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_browser_is_sent_that_the_connection_is_back_where_the_run_is_polled(
    status: int,
) -> None:
    """While the run goes on: such as of a server that makes the turn again after its restart."""
    broadcaster = Broadcaster(resumes=True)
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:8]))]
    broadcaster.status = "in_progress"
    lost = Answer(status, GONE, broadcaster.features)
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        server.answer_with(lambda one: lost if one.path.endswith("/stream") else broadcaster(one))
        async with relay.sse(client.runs.stream("thread_1", assistant_id="asst_1")) as frames:
            body = b""
            while b"event: reconnected\n" not in body:
                body += await anext(frames)
            broadcaster.status = "completed"
            body += b"".join([one async for one in frames])
    seen = frames_of(body)

    assert text_of(seen) == broadcaster.text
    assert [one.event for one in seen if "connect" in one.event] == ["reconnecting", "reconnected"]
    assert seen[-1].event == "done"


async def _open_after(way: Way, failures: int) -> None:
    while way.rejected < failures:  # noqa: ASYNC110 - nobody announces a connection
        await anyio.sleep(0.01)
    way.open()


async def test_browser_is_shown_nothing_of_how_the_answer_was_made(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """No instructions, tools, metadata, model or steps; of a run its ids and its status."""
    runs_server.call_tool("look_up", {"key": "hidden"})
    tool = {"type": "function", "function": {"name": "look_up"}}
    run = await started(runs_client, tools=[tool])

    stream = runs_client.runs.follow(run.id, thread_id=run.thread_id)
    body = b"".join([part async for part in relay.sse(stream)])
    last = frames_of(body)[-2]

    for hidden in (INSTRUCTIONS, "look_up", "hidden", "secret", "metadata", "thread.run.step"):
        assert hidden.encode() not in body
    assert msgspec.json.decode(last.data) == {
        "id": run.id,
        "object": "thread.run",
        "thread_id": run.thread_id,
        "status": "requires_action",
        "last_error": None,
        "incomplete_details": None,
    }


async def test_message_is_shown_without_metadata_and_attachments(told: Told) -> None:
    """Its text is what it is there for; a field that nobody knows is not shown either."""
    broadcaster, _, client = told
    noted = frames_of(broadcaster.frames[5])[0]
    message = {**msgspec.json.decode(noted.data), "metadata": {"a": "b"}, "attachments": []}
    broadcaster.frames[5] = frame(noted.event, {**message, "x_trace": "c"})

    stream = client.runs.stream("thread_1", assistant_id="asst_1")
    seen = frames_of([body async for body in relay.sse(stream)])
    (created,) = [one for one in seen if one.event == noted.event]

    assert msgspec.json.decode(created.data).keys() == {
        "id",
        "object",
        "created_at",
        "thread_id",
        "run_id",
        "assistant_id",
        "role",
        "status",
        "content",
    }


async def test_thread_of_a_run_is_shown_by_its_id(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A page learns which thread was made for it, and no more."""
    assistant = await runs_client.assistants.create(model="m")

    stream = runs_client.threads.create_and_run_stream(
        assistant_id=assistant.id, thread={"metadata": {"user": "secret"}}
    )
    seen = frames_of([body async for body in relay.sse(stream)])

    assert seen[0].event == "thread.created"
    assert msgspec.json.decode(seen[0].data).keys() == {"id", "object", "created_at"}


async def test_full_stream_is_what_the_server_sends(told: Told) -> None:
    """Every event with its JSON as it came, unknown events included."""
    broadcaster, _, client = told
    broadcaster.frames.insert(3, frame("thread.archived", {"a": [1, "\n"]}))

    stream = client.runs.stream("thread_1", assistant_id="asst_1", metadata={})
    begin, *bodies = [body async for body in relay.sse(stream, full=True)]

    assert frames_of(bodies) == frames_of(broadcaster.stream)
    assert begin == b"retry: 1000\n\n"


@pytest.mark.parametrize("how", ["await", "async with", "first frame"])
async def test_refusal_is_raised_before_the_first_byte(told: Told, how: str) -> None:
    """So the framework can still answer with an error status."""
    _, server, client = told
    text = "Thread thread_1 already has an active run run_9."
    server.answer_with(lambda request: Answer(400, {"error": {"message": text}}))
    frames = relay.sse(client.runs.stream("thread_1", assistant_id="asst_1"))
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "await": lambda: frames,
        "async with": frames.__aenter__,
        "first frame": frames.__anext__,
    }
    begin = ways[how]

    with pytest.raises(ActiveRunError):
        await begin()


async def test_run_that_is_not_there_is_a_404_before_the_first_byte(
    runs_client: AsyncClient,
) -> None:
    """Also where it is followed."""
    thread = await runs_client.threads.create()

    with pytest.raises(NotFoundError):
        await relay.sse(runs_client.runs.follow("run_none", thread_id=thread.id))


async def test_stream_that_is_open_already_is_relayed_whole(told: Told) -> None:
    """Opened by `create(stream=True)`, or by its own block."""
    broadcaster, server, client = told

    stream = await client.runs.create("thread_1", assistant_id="asst_1", stream=True)
    async with await relay.sse(stream) as frames:
        seen = frames_of([body async for body in frames])

    assert text_of(seen) == broadcaster.text
    assert len(server.requests) == 1


FAULTS = {
    "stream_error": b'event: error\ndata: {"message": "at 10.0.0.1 sk-secret", "code": "x"}\n\n',
    "stream_interrupted": b"",
}


@pytest.mark.parametrize("code", FAULTS)
async def test_failure_on_the_way_is_the_last_frame(
    told: Told, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A page is told what to do with it; what it names inside is logged, not sent."""
    broadcaster, server, client = told
    cut = HEAD + b"\r\n" + b"".join(broadcaster.frames[:8]) + FAULTS[code]
    server.answer_with(lambda request: Raw(cut) if request.method == "POST" else Answer(404))

    stream = client.runs.stream("thread_1", assistant_id="asst_1")
    with caplog.at_level(logging.WARNING, "openai_runs.relay"):
        seen = frames_of([body async for body in relay.sse(stream)])

    assert text_of(seen) == "Hel"
    assert seen[-1].event == "error"
    said = msgspec.json.decode(seen[-1].data)
    assert said.keys() == {"code", "message", "run_id"}
    assert (said["code"], said["run_id"]) == (code, "run_1")
    assert "10.0.0.1" not in said["message"]
    assert "127.0.0.1" not in said["message"]
    assert "run_1" in caplog.text


async def test_wait_that_is_too_long_is_told_as_that() -> None:
    """The run goes on, and a page may come back for it."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        stream = client.runs.follow(run.id, thread_id=run.thread_id, timeout=0.2)
        seen = frames_of([body async for body in relay.sse(stream)])

    said = msgspec.json.decode(seen[-1].data)
    assert (seen[-1].event, said["code"], said["run_id"]) == ("error", "run_wait_timeout", run.id)


async def test_endless_tool_calls_are_told_as_that(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A run that asks for tools for ever is given up."""
    for _ in range(2):
        runs_server.call_tool("look_up")

    def look_up() -> str:
        """Look it up."""
        return "nothing"

    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()
    stream = runs_client.runs.stream(
        thread.id, assistant_id=assistant.id, tools=[look_up], max_rounds=1
    )
    seen = frames_of([body async for body in relay.sse(stream)])

    assert seen[-1].event == "error"
    assert msgspec.json.decode(seen[-1].data)["code"] == "tool_error"


async def test_silence_is_filled_with_comments() -> None:
    """A proxy keeps a connection on which something comes."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        stream = client.runs.follow(run.id, thread_id=run.thread_id)
        frames = await relay.sse(stream, heartbeat=0.01)
        await until_text(frames, "Hello ")
        filling = [await anext(frames) for _ in range(3)]
        model.go_on.set()
        rest = [body async for body in frames]

    assert filling == [b": keep-alive\n\n"] * 3
    assert text_of(frames_of(rest)) == "you"


async def test_events_that_are_not_shown_are_filled_with_comments(told: Told) -> None:
    """A proxy does not know that they have come."""
    broadcaster, server, client = told
    hidden = frame("thread.run.step.in_progress", step_json()) * 3
    server.answer_with(lambda request: Stall(HEAD + b"\r\n" + broadcaster.frames[0] + hidden))
    stream = client.runs.stream("thread_1", assistant_id="asst_1", idle_timeout=math.inf)

    async with relay.sse(stream, heartbeat=1e-9) as frames:
        begin = [await anext(frames) for _ in range(4)]

    shown = [body for body in begin if body != b": keep-alive\n\n"]
    assert [one.event for one in frames_of(shown)] in ([], ["thread.run.created"])
    assert b"thread.run.step" not in b"".join(begin)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"on_disconnect": "stop"}, ValueError),
        ({"heartbeat": 0}, ValueError),
        ({"heartbeat": "15"}, TypeError),
    ],
)
async def test_wrong_arguments_are_refused_at_once(
    told: Told, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    """Before anything is sent."""
    _, server, client = told
    stream = client.runs.stream("thread_1", assistant_id="asst_1")

    with pytest.raises(kind):
        relay.sse(stream, **arguments)

    assert server.requests == []


async def test_stream_is_left_in_no_third_way(told: Told) -> None:
    """Only the two that there are."""
    _, _, client = told
    stream = client.runs.stream("thread_1", assistant_id="asst_1")

    with pytest.raises(ValueError, match="on_cancel"):
        stream.set_on_cancel("stop")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(OSError("disk full at /secret"), "server_error", id="of-another-package"),
        pytest.param(ConnectionError("secret"), "server_error", id="of-python"),
        pytest.param(StreamInterrupted("cut at /secret"), "stream_interrupted", id="of-a-stream"),
        pytest.param(OpenAIRunsError("secret", run_id="run_1"), "upstream_error", id="of-a-run"),
    ],
)
def test_frame_of_an_error_says_nothing_of_its_text(error: Exception, code: str) -> None:
    """Whatever was raised, a browser is sent a code and a fixed sentence."""
    (frame,) = frames_of(relay.error_frame(error))

    assert frame.event == "error"
    assert b"secret" not in frame.data
    assert msgspec.json.decode(frame.data)["code"] == code
