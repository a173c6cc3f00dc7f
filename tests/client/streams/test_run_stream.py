"""A stream emits a run from its first event to its result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, Run
from openai_runs.errors import ActiveRunError, RunFailed, RunWaitTimeout, StreamError
from openai_runs.types import MessageDeltaEvent, RunEvent, UnknownEvent
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import Broadcaster, delta, frame, message_json
from tests.support import Answer, HostileServer, Stall, run_json

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}


@pytest.fixture
async def told() -> AsyncIterator[tuple[Broadcaster, HostileServer, AsyncClient]]:
    """Yield a run that is streamed whole, its server, and a client."""
    broadcaster = Broadcaster()
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        yield broadcaster, server, client


Told = tuple[Broadcaster, HostileServer, AsyncClient]


async def test_events_come_in_order_with_their_types(told: Told) -> None:
    """What the server sends is what is handed out, and the run is there from the first on."""
    broadcaster, server, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        assert stream.run is None
        names = []
        async for event in stream:
            names.append(event.event)
            assert stream.run is not None
            assert stream.run.id == "run_1"

    assert names == broadcaster.names
    (request,) = server.requests
    assert request.json == {
        "assistant_id": "asst_1",
        "stream": True,
        "metadata": request.json["metadata"],
    }
    assert request.headers["accept"].startswith("text/event-stream")


async def test_result_needs_no_further_request_when_all_was_told(told: Told) -> None:
    """Run, messages and steps of the result are those of the events."""
    _, server, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        result = await stream.result()

    assert result.text == "Hello wörld"
    assert result.run.status == "completed"
    assert [step.status for step in result.steps] == ["completed"]
    assert not result.recovered
    assert len(server.requests) == 1


async def test_text_deltas_add_up_to_the_text(told: Told) -> None:
    """Each piece is handed out as it came."""
    _, _, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        pieces = [piece async for piece in stream.text_deltas()]

    assert pieces == ["Hel", "lo ", "wör", "ld"]
    assert (await stream.result()).text == "".join(pieces)


async def test_text_snapshots_end_with_the_whole_text(told: Told) -> None:
    """However few there are, the last one is the text."""
    _, _, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        texts = [text async for text in stream.text_snapshots(every=1e-9)]
    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        few = [text async for text in stream.text_snapshots(every=60)]

    assert texts[-1] == few[-1] == "Hello wörld"
    assert texts == sorted(texts, key=len)
    assert few == ["Hel", "Hello wörld"]


async def test_create_with_stream_returns_an_open_stream(told: Told) -> None:
    """As with the official client, where it needs no block."""
    broadcaster, _, client = told

    stream = await client.beta.threads.runs.create("thread_1", assistant_id="asst_1", stream=True)

    assert [event.event async for event in stream] == broadcaster.names


async def test_mark_of_the_create_is_never_shown(told: Told) -> None:
    """Not on the run, and not in the JSON of its events."""
    broadcaster, _, client = told
    marked = run_json(metadata={"openai_runs_key": "secret", "mine": "yes"})
    broadcaster.frames[0] = frame("thread.run.created", marked)

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        first = await anext(stream)

    assert isinstance(first, RunEvent)
    assert first.data.metadata == {"mine": "yes"}
    assert b"secret" not in first.json


async def test_refusal_is_raised_on_entering(told: Told) -> None:
    """An ordinary error answer is an ordinary error, and nothing is read."""
    _, server, client = told
    text = "Thread thread_1 already has an active run run_9."
    server.answer_with(lambda request: Answer(400, {"error": {"message": text}}))

    with pytest.raises(ActiveRunError) as caught:
        async with client.runs.stream("thread_1", assistant_id="asst_1"):
            pytest.fail("entered")

    assert caught.value.blocking_run_id == "run_9"


@pytest.mark.parametrize(
    "data",
    [
        {"code": "server_error", "message": "Out of order.", "param": None, "type": "server_error"},
        {"error": {"code": "server_error", "message": "Out of order.", "type": "server_error"}},
    ],
    ids=["flat", "nested"],
)
async def test_error_event_is_raised_after_what_came_before(told: Told, data: Any) -> None:
    """The deltas before it are handed out first; the error has code and ids."""
    broadcaster, _, client = told
    broadcaster.frames[9:] = [frame("error", data)]

    stream = client.runs.stream("thread_1", assistant_id="asst_1")
    async with stream:
        with pytest.raises(StreamError, match="Out of order") as caught:
            await stream.until_done()

    assert stream.snapshot.text == "Hello "
    assert caught.value.code == "server_error"
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")


async def test_result_is_still_to_be_had_after_an_error_event(told: Told) -> None:
    """The run went on: what came of it is fetched."""
    broadcaster, _, client = told
    broadcaster.frames[9:] = [frame("error", {"message": "Out of order."})]

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        with pytest.raises(StreamError):
            await stream.until_done()

        assert (await stream.result()).text == "Hello wörld"


async def test_failed_run_raises_after_its_text(told: Told) -> None:
    """Whoever reads only the text hears of a failure; whoever reads events sees it."""
    broadcaster, _, client = told
    error = {"code": "rate_limit_exceeded", "message": "Too much."}
    failed = frame("thread.run.failed", run_json("failed", last_error=error))
    broadcaster.frames[9:] = [failed]

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        pieces = stream.text_deltas()
        assert [await anext(pieces), await anext(pieces)] == ["Hel", "lo "]
        with pytest.raises(RunFailed, match="Too much"):
            await anext(pieces)
    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        names = [event.event async for event in stream]

    assert names[-1] == "thread.run.failed"


async def test_unknown_events_are_handed_out_and_cost_nothing(told: Told) -> None:
    """A name nobody knows is an event like any other."""
    broadcaster, _, client = told
    broadcaster.frames.insert(8, frame("thread.run.step.thought", {"deep": True}))

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        unknown = [event async for event in stream if isinstance(event, UnknownEvent)]

    assert [event.data for event in unknown] == [{"deep": True}]
    assert stream.snapshot.text == "Hello wörld"


async def test_missing_done_and_data_only_envelopes_are_read(told: Told) -> None:
    """As astra sends them: no names, no [DONE]."""
    broadcaster, server, client = told
    wrapped = b"".join(
        b'data: {"event": "'
        + one.split(b"\n")[0][7:]
        + b'", "data": '
        + one.split(b"\n")[1][6:]
        + b"}\n\n"
        for one in broadcaster.frames
    )
    broadcaster.frames = [wrapped]

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        names = [event.event async for event in stream]

    assert names == broadcaster.names
    assert len(server.requests) == 1


async def test_stream_of_another_task_is_refused(told: Told) -> None:
    """Two readers of one iterator would each miss what the other gets."""
    broadcaster, _, client = told
    broadcaster.cuts = [0]
    broadcaster.after_cut = Stall

    async with (
        client.runs.stream("thread_1", assistant_id="asst_1") as stream,
        anyio.create_task_group() as group,
    ):
        group.start_soon(stream.until_done)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        group.cancel_scope.cancel()


async def test_second_message_is_set_apart_in_the_text(told: Told) -> None:
    """Deltas of two messages add up to the result's text as well."""
    broadcaster, _, client = told
    second = {**delta("More."), "id": "msg_2"}
    broadcaster.frames[-2:-2] = [
        frame("thread.message.created", message_json(id="msg_2")),
        frame("thread.message.delta", second),
        frame("thread.message.completed", message_json("More.", "completed", id="msg_2")),
    ]

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        pieces = [piece async for piece in stream.text_deltas()]

    assert "".join(pieces) == "Hello wörld\n\nMore." == (await stream.result()).text


async def test_event_has_its_own_json_with_unknown_fields(told: Told) -> None:
    """`to_dict` is what was sent, not what we know of it."""
    broadcaster, _, client = told
    broadcaster.frames[7] = frame("thread.message.delta", {**delta("Hel"), "novel": 1})

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        deltas = [event async for event in stream if isinstance(event, MessageDeltaEvent)]

    assert deltas[0].to_dict() == {
        "event": "thread.message.delta",
        "data": {**delta("Hel"), "novel": 1},
    }


async def test_text_without_deltas_is_told_by_the_end_of_its_message(told: Told) -> None:
    """A server that sends messages whole: the text is one piece, and comes once."""
    broadcaster, _, client = told
    broadcaster.frames[7:11] = []

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        pieces = [piece async for piece in stream.text_deltas()]

    assert pieces == ["Hello wörld"]


async def test_unknown_status_in_mid_stream_does_not_end_it(told: Told) -> None:
    """More may come after a status that nobody knows."""
    broadcaster, server, client = told
    broadcaster.frames.insert(8, frame("thread.run.paused", run_json("paused")))

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        result = await stream.result()

    assert result.text == "Hello wörld"
    assert len(server.requests) == 1


async def test_timeout_holds_for_a_caller_that_is_slow(told: Told) -> None:
    """Although everything has come long ago: the time is that of the whole call."""
    _, _, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1", timeout=0.2) as stream:
        await anext(stream)
        await anyio.sleep(0.3)
        with pytest.raises(RunWaitTimeout) as caught:
            await anext(stream)

    assert caught.value.run_id == "run_1"


async def test_event_is_not_lost_when_on_status_is_cancelled(told: Told) -> None:
    """An event whose announcement is cut short comes again, and is not announced again."""
    broadcaster, _, client = told
    seen: list[str] = []

    async def slow(run: Run) -> None:
        seen.append(run.status)
        await anyio.sleep(0.05)

    names: list[str] = []
    async with client.runs.stream("thread_1", assistant_id="asst_1", on_status=slow) as stream:
        while len(names) < len(broadcaster.names):
            with anyio.move_on_after(0.01):
                names.append((await anext(stream)).event)

    assert names == broadcaster.names
    assert seen == ["queued", "in_progress", "completed"]


async def test_stream_left_early_is_not_called_recovered(told: Told) -> None:
    """Nothing broke: the result is fetched because the caller left."""
    _, _, client = told

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        await anext(stream)

    assert not (await stream.result()).recovered


async def test_opening_a_stream_is_two_coroutines_above_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error of the connection shows `__aenter__`, `open`, and then the request's own way."""

    async def fail(*args: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("aiohttp.ClientSession.request", fail)
    async with AsyncClient(base_url="http://127.0.0.1:9/v1", api_key="k") as client:
        with pytest.raises(ZeroDivisionError) as caught:
            await client.runs.stream("thread_1", assistant_id="asst_1").__aenter__()

    files = [Path(entry.path).name for entry in caught.traceback]
    begin = files.index("run_stream.py")
    assert files[begin : begin + 2] == ["run_stream.py", "session.py"]
    assert not {"run_stream.py", "session.py"} & set(files[begin + 2 :])
