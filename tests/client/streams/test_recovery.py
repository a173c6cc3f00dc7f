"""A stream that breaks is finished all the same: no text is lost, none comes twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, RunStream
from openai_runs.errors import APIConnectionError, RunWaitTimeout, StreamInterrupted
from tests.canaries import CANARY_KEY
from tests.client.broadcaster import Broadcaster
from tests.support import Action, Answer, Drop, HostileServer, Raw, Received, Reset, Stall, run_json
from tests.tiers import few

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}
LENGTH = len(Broadcaster(resumes=True).stream)


def boundaries() -> list[int]:
    """Return the offset of each event's first byte, and a few inside and around."""
    offsets, at = [0, 1], 0
    for one in Broadcaster(resumes=True).frames:
        at += len(one)
        offsets += [at - 1, at, at + 7]
    return offsets


@pytest.fixture(params=["resuming", "plain"])
async def cut(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[Broadcaster, HostileServer, AsyncClient]]:
    """Yield a run whose stream can be cut, its server, and a client that does not pause."""
    able = request.param == "resuming"
    broadcaster = Broadcaster(resumes=able, keys=able)
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        yield broadcaster, server, client


Cut = tuple[Broadcaster, HostileServer, AsyncClient]


async def played(client: AsyncClient, **arguments: Any) -> tuple[list[str], str, Any]:
    """Return the names of all events, the text of all deltas, and the result."""
    names: list[str] = []
    text = ""
    async with client.runs.stream("thread_1", assistant_id="asst_1", **arguments) as stream:
        async for event in stream:
            names.append(event.event)
            text += getattr(event.data, "text", "") if "delta" in event.event else ""
        result = await stream.result()
    return names, text, result


@pytest.mark.parametrize("after", boundaries())
async def test_text_is_whole_when_cut_at_a_boundary(cut: Cut, after: int) -> None:
    """The result is complete and says that it was recovered, wherever the cut was."""
    broadcaster, _, client = cut
    broadcaster.cuts = [after]

    names, text, result = await played(client)

    assert text == result.text == "Hello wörld"
    assert result.run.status == "completed"
    assert [message.status for message in result.messages] == ["completed"]
    assert [step.status for step in result.steps] == ["completed"]
    assert names[-1] == "thread.run.completed"
    assert names.count("thread.run.completed") == 1


@pytest.mark.parametrize("seed", few(range(20), kept=range(5), rest=pytest.mark.seeds))
@pytest.mark.parametrize("how", [Raw, Stall], ids=["cut", "stalled"])
async def test_text_is_whole_when_broken_anywhere(cut: Cut, how: Any, seed: int) -> None:
    """Three breaks at random bytes, by an end or by silence."""
    broadcaster, _, client = cut
    chance = random.Random(seed)
    broadcaster.cuts = [chance.randrange(LENGTH) for _ in range(3)]
    broadcaster.after_cut = how

    _, text, result = await played(client, idle_timeout=0.05)

    assert text == result.text == "Hello wörld"
    assert result.run.status == "completed"


@pytest.mark.parametrize("cut", ["resuming"], indirect=True)
async def test_resumed_stream_asks_for_what_follows(cut: Cut) -> None:
    """The id of the last whole event goes along, and nothing is fetched that was received."""
    broadcaster, server, client = cut
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:9])) + 5]

    names, _, result = await played(client)

    assert names == broadcaster.names
    assert result.recovered
    (resumed,) = server.seen("GET")
    assert resumed.path.endswith("/stream")
    assert resumed.headers["last-event-id"] == "1-9"


@pytest.mark.parametrize("cut", ["resuming"], indirect=True)
async def test_lost_place_is_made_good_by_polling(cut: Cut) -> None:
    """A server that no longer has that event says 409; the rest is backfilled."""
    broadcaster, server, client = cut
    lost = Answer(
        409, {"error": {"message": "gone", "code": "stream_position_lost"}}, broadcaster.features
    )

    def lose(request: Received) -> Action:
        return lost if request.path.endswith("/stream") else broadcaster(request)

    server.answer_with(lose)
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:9])) + 5]

    _, text, result = await played(client)

    assert text == result.text == "Hello wörld"
    assert result.recovered


async def test_stream_that_is_cut_at_once_each_time_is_given_up_for_polling(cut: Cut) -> None:
    """Where resuming brings nothing new, the run is asked for instead, after a few tries."""
    broadcaster, server, client = cut
    start = len(b"".join(broadcaster.frames[:9]))
    broadcaster.cuts = [start, *[0] * 1000]

    _, text, result = await played(client)

    assert text == result.text == "Hello wörld"
    assert len(server.requests) < 10


async def test_rewritten_text_is_right_in_the_result(cut: Cut) -> None:
    """A server that wrote anew after a crash: no delta pretends to go on from the old text."""
    broadcaster, _, client = cut
    broadcaster.resumes = False
    broadcaster.features = {}
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:9]))]
    broadcaster.text = "Good day."

    names, text, result = await played(client)

    assert text == "Hello "
    assert result.text == "Good day."
    assert "thread.message.completed" in names


async def test_events_are_whole_where_the_server_does_not_stream(cut: Cut) -> None:
    """A server that answers `stream` with the run as JSON: it is polled."""
    broadcaster, server, client = cut
    broadcaster.resumes = False
    broadcaster.features = {}

    def whole(request: Received) -> Action:
        return Answer(json=run_json()) if request.method == "POST" else broadcaster(request)

    server.answer_with(whole)

    names, text, result = await played(client)

    assert text == result.text == "Hello wörld"
    assert names[-1] == "thread.run.completed"


async def test_lost_answer_to_the_create_is_found_again() -> None:
    """The create is reset after it arrived: its run is found by its marker, and emitted."""
    broadcaster = Broadcaster()
    marked: list[dict[str, Any]] = []

    def lose(request: Received) -> Action:
        if request.method == "POST" and not marked:
            marked.append(run_json(metadata=request.json["metadata"]))
            return Reset()
        if request.method == "GET" and request.path.endswith("/runs"):
            return Answer(json={"object": "list", "data": marked, "has_more": False})
        return broadcaster(request)

    async with (
        HostileServer(lose) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        _, text, result = await played(client)

    assert text == result.text == "Hello wörld"
    assert len(server.seen("POST")) == 1
    assert result.recovered


async def test_server_that_is_gone_raises_with_text_and_ids() -> None:
    """Cut in the middle, and nothing answers any more: the error has what came."""
    broadcaster = Broadcaster()
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:9]))]

    def vanish(request: Received) -> Action:
        return broadcaster(request) if request.method == "POST" else Drop()

    poll = PollPolicy(initial=0.01, maximum=0.05, max_outage=0.3)
    async with (
        HostileServer(vanish) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **{**AT_ONCE, "poll": poll}) as client,
    ):
        with pytest.raises(StreamInterrupted) as caught:
            await played(client)

    assert caught.value.text_so_far == "Hello "
    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")


async def test_timeout_ends_a_stream_that_is_silent() -> None:
    """The run goes on, the caller does not: the error has the run, and can cancel it."""
    broadcaster = Broadcaster()
    broadcaster.status = "in_progress"
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:9]))]
    broadcaster.after_cut = Stall
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        with pytest.raises(RunWaitTimeout) as caught:
            await played(client, timeout=0.3, on_timeout="cancel")

    assert caught.value.run.id == "run_1"
    assert len(server.seen("POST", "/cancel")) == 1


@pytest.mark.parametrize("on_cancel", ["leave", "cancel"])
async def test_leaving_early_follows_on_cancel(cut: Cut, on_cancel: Any) -> None:
    """A block left at the third event closes the stream, and cancels the run if asked to."""
    broadcaster, server, client = cut

    async with client.runs.stream("thread_1", assistant_id="asst_1", on_cancel=on_cancel) as stream:
        for _ in range(3):
            await anext(stream)

    assert len(server.seen("POST", "/cancel")) == (on_cancel == "cancel")
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_result_of_a_stream_left_early_is_waited_for(cut: Cut) -> None:
    """After the block as well: the run is polled to its end."""
    _, _, client = cut

    async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
        for _ in range(3):
            await anext(stream)

    assert (await stream.result()).text == "Hello wörld"


async def test_cancelled_wait_for_an_event_loses_nothing(cut: Cut) -> None:
    """An event that was awaited in vain for a moment comes later."""
    broadcaster, _, client = cut
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:3])) + 4]
    broadcaster.after_cut = Stall

    names = []
    async with client.runs.stream("thread_1", assistant_id="asst_1", idle_timeout=0.3) as stream:
        while True:
            with anyio.move_on_after(0.02):
                try:
                    names.append((await anext(stream)).event)
                except StopAsyncIteration:
                    break

    assert names[:3] == broadcaster.names[:3]
    assert names[-1] == "thread.run.completed"


async def test_message_that_was_never_begun_is_told_by_catching_up(cut: Cut) -> None:
    """Cut before the message: its text comes as one delta, and its end as an event."""
    broadcaster, _, client = cut
    broadcaster.resumes, broadcaster.features = False, {}
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:3]))]

    names, text, _ = await played(client)

    assert text == "Hello wörld"
    assert names[3:] == [
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.step.created",
        "thread.run.step.completed",
        "thread.run.completed",
    ]


async def test_closing_ends_the_wait_of_another_task(cut: Cut) -> None:
    """Whoever awaits an event of a stream that is closed gets the end, and no recovery begins."""
    broadcaster, server, client = cut
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:3]))]
    broadcaster.after_cut = Stall
    stream = client.runs.stream("thread_1", assistant_id="asst_1")
    names: list[str] = []
    is_read = anyio.Event()

    async def read() -> None:
        async for event in stream:
            names.append(event.event)
            if len(names) == 3:
                is_read.set()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await is_read.wait()
        await stream.aclose()

    assert names == broadcaster.names[:3]
    assert len(server.requests) == 1


async def test_slow_caller_is_not_taken_for_a_silent_server(cut: Cut) -> None:
    """A caller that takes longer over an event than the idle limit causes no poll of the run."""
    _, server, client = cut

    async with client.runs.stream("thread_1", assistant_id="asst_1", idle_timeout=0.02) as stream:
        async for _ in stream:
            await anyio.sleep(0.03)

    assert len(server.requests) == 1
    assert not stream.recovered


async def test_result_polls_when_backfilled_events_were_left_unread() -> None:
    """What was never handed out is not in the snapshot, so the run is asked for again."""
    broadcaster = Broadcaster()
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:3]))]
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        async with client.runs.stream("thread_1", assistant_id="asst_1") as stream:
            async for _ in stream:
                if stream.recovered:
                    break
        result = await stream.result()

    assert (result.run.status, result.text) == ("completed", "Hello wörld")


async def test_on_status_is_called_once_when_backfilled_events_were_left_unread() -> None:
    """The wait of the recovery calls it with the last status; the result's wait does not."""
    broadcaster = Broadcaster()
    broadcaster.cuts = [len(b"".join(broadcaster.frames[:3]))]
    statuses: list[str] = []
    async with (
        HostileServer(broadcaster) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        async with client.runs.stream(
            "thread_1", assistant_id="asst_1", on_status=lambda run: statuses.append(run.status)
        ) as stream:
            async for _ in stream:
                if stream.recovered:
                    break
        await stream.result()

    assert statuses == ["queued", "in_progress", "completed"]


@pytest.mark.parametrize("answer", ["stream", "run", "lost"])
async def test_run_is_cancelled_when_its_stream_was_closed_before_the_create_was_answered(
    answer: str,
) -> None:
    """Another task leaves the stream, which asks to cancel: the run that begins is cancelled."""
    broadcaster = Broadcaster()
    broadcaster.status = "in_progress"
    is_sent, may_answer = anyio.Event(), anyio.Event()

    async def slow(request: Received) -> Action:
        action = broadcaster(request)
        if request.method == "POST" and request.path.endswith("/runs"):
            is_sent.set()
            await may_answer.wait()
            if answer != "stream":
                return Drop() if answer == "lost" else Answer(json=run_json("in_progress"))
        return action

    async def read(stream: RunStream) -> None:
        with suppress(APIConnectionError):
            await stream.until_done()

    async with (
        HostileServer(slow) as server,
        AsyncClient(base_url=server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        stream = client.runs.stream("thread_1", assistant_id="asst_1", on_cancel="cancel")
        async with anyio.create_task_group() as group:
            group.start_soon(read, stream)
            await is_sent.wait()
            await stream.aclose()
            may_answer.set()

        assert len(server.seen("POST", "/cancel")) == 1
