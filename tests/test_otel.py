"""`openai_runs.otel`: the spans of a run are one trace, and hold no content unless asked."""

from __future__ import annotations

import anyio
import pytest
from opentelemetry.trace import StatusCode

from openai_runs import AsyncClient, RunWaitTimeout, await_run
from openai_runs.server import Call as ToolCall
from openai_runs.server import (
    CallTools,
    Fail,
    Hang,
    Say,
)
from tests.tracing import ANSWER, KEY, QUESTION, TEXTS, Recorder, both, tree


def weather(city: str) -> str:
    """Return the weather."""
    return "18 degrees"


def rain(city: str) -> str:
    """Return the rain."""
    return "wet as ever"


def broken(city: str) -> str:
    """Raise."""
    raise LookupError(city)


CALLS = CallTools([ToolCall("weather", {"city": "Paris"}), ToolCall("rain", {"city": "Paris"})])


@pytest.fixture
def recorder() -> Recorder:
    """Return an empty recorder."""
    return Recorder()


STREAMED = """
CLIENT invoke_agent ASSISTANT
  CLIENT POST createRun
    SERVER POST /v1/threads/{thread_id}/runs
      INTERNAL invoke_agent ASSISTANT
        CLIENT chat m-1
      INTERNAL invoke_agent ASSISTANT
        CLIENT chat m-1
  INTERNAL execute_tool weather
  INTERNAL execute_tool rain
  CLIENT POST submitToolOuputsToRun
    SERVER POST /v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs
"""
"""The tree of a streamed run with two tools: kinds, names, parents."""


async def test_streamed_run_with_two_tools_is_one_trace(recorder: Recorder) -> None:
    """The spans of client and server are the tree that is written down above, in one trace."""
    async with both(recorder, CALLS, Say(ANSWER)) as (client, assistant, thread):
        async with client.runs.stream(
            thread, assistant_id=assistant, model="m-1", tools=[weather, rain]
        ) as stream:
            result = await stream.result()
        assert result.text == ANSWER

    spans = recorder.spans
    assert tree(spans, {assistant: "ASSISTANT"}) == STREAMED.strip().splitlines()
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    assert all(span.status.status_code is StatusCode.UNSET for span in spans)


async def test_spans_of_a_stream_have_the_names_of_the_conventions(
    recorder: Recorder,
) -> None:
    """Ids, model, tokens and status stand under the names of the GenAI conventions."""
    async with both(recorder, CALLS, Say(ANSWER)) as (client, assistant, thread):
        stream = client.runs.stream(
            thread, assistant_id=assistant, model="m-1", tools=[weather, rain]
        )
        result = await stream.result()

    run = result.run
    of_run = dict(recorder.named("invoke_agent")[0].attributes or {})
    assert of_run == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "openai",
        "gen_ai.agent.id": assistant,
        "gen_ai.conversation.id": thread,
        "gen_ai.request.model": "m-1",
        "gen_ai.response.model": "m-1",
        "gen_ai.response.id": run.id,
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 10,
        "openai_runs.run.id": run.id,
        "openai_runs.run.status": "completed",
    }
    asked, ended = recorder.named("invoke_agent")[1:]
    assert (asked.attributes or {})["openai_runs.run.status"] == "requires_action"
    assert (ended.attributes or {})["openai_runs.run.status"] == "completed"
    (first, second) = recorder.named("chat")
    assert (first.attributes or {})["gen_ai.usage.input_tokens"] == 10
    assert (second.attributes or {})["gen_ai.response.finish_reasons"] == ("stop",)
    tool = dict(recorder.named("execute_tool weather")[0].attributes or {})
    assert tool.pop("gen_ai.tool.call.id")
    assert tool == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.type": "function",
    }
    leg = recorder.named("POST createRun")[0]
    assert (leg.attributes or {})["http.response.status_code"] == 200
    assert (leg.attributes or {})["gen_ai.conversation.id"] == thread


async def test_polled_run_with_tools_is_one_trace(recorder: Recorder) -> None:
    """Create, polls, tools and lists are children of the run's span; so are the shared polls."""
    async with both(recorder, CALLS, Say(ANSWER)) as (client, assistant, thread):
        await client.runs.run_tools(thread, assistant_id=assistant, tools=[weather, rain])

    spans = recorder.spans
    root = recorder.named("invoke_agent")[0]
    assert root.context is not None
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    below = {s.name for s in spans if s.parent and s.parent.span_id == root.context.span_id}
    assert below == {
        "POST createRun",
        "GET getRun",
        "execute_tool weather",
        "execute_tool rain",
        "POST submitToolOuputsToRun",
        "GET listMessages",
        "GET listRunSteps",
    }


@pytest.mark.parametrize(
    "call", ["create_and_poll", "wait", "await_run", "poll", "create_and_run_poll", "map"]
)
async def test_each_way_to_wait_has_a_span_of_the_run(recorder: Recorder, call: str) -> None:
    """Every call that waits for a run is one span with its polls below it, and its outcome."""
    async with both(recorder, Say(ANSWER)) as (client, assistant, thread):
        if call == "create_and_poll":
            await client.runs.create_and_poll(thread, assistant_id=assistant)
        elif call == "create_and_run_poll":
            await client.threads.create_and_run_poll(assistant_id=assistant)
        elif call == "map":
            items = [("one", {"thread_id": thread})]
            async with client.runs.map(items, concurrency=1, assistant_id=assistant) as results:
                assert [key async for key, _ in results] == ["one"]
        else:
            run = await client.runs.create(thread, assistant_id=assistant)
            if call == "wait":
                await client.runs.wait(run)
            elif call == "await_run":
                await await_run(client, run)
            else:
                await client.runs.poll(run.id, thread)

    root = next(s for s in recorder.named("invoke_agent") if s.kind.name == "CLIENT")
    assert (root.attributes or {})["openai_runs.run.status"] == "completed"
    assert (root.attributes or {})["gen_ai.usage.output_tokens"] == 5
    assert root.context is not None
    polls = recorder.named("GET getRun")
    assert polls
    assert {poll.parent.span_id for poll in polls if poll.parent} == {root.context.span_id}


async def test_failed_run_is_an_error_of_its_spans(recorder: Recorder) -> None:
    """The run's span, its execution and its model call have the code as `error.type`."""
    async with both(recorder, Fail("It broke.", code="rate_limit_exceeded")) as (client, a, t):
        await client.runs.create_and_poll(t, assistant_id=a)

    failed = [*recorder.named("invoke_agent"), *recorder.named("chat")]
    assert len(failed) == 3
    assert {(s.attributes or {})["error.type"] for s in failed} == {"rate_limit_exceeded"}
    assert {s.status.status_code for s in failed} == {StatusCode.ERROR}
    assert "It broke." not in recorder.text()


async def test_failing_and_slow_tools_are_errors_of_their_spans(recorder: Recorder) -> None:
    """What the model reads as an error is one of the tool's span, and not of the run's."""
    calls = CallTools([ToolCall("broken", {"city": "Paris"}), ToolCall("slow")])

    async def slow() -> None:
        await anyio.sleep_forever()

    async with both(recorder, calls, Say(ANSWER)) as (client, assistant, thread):
        await client.runs.run_tools(
            thread, assistant_id=assistant, tools=[broken, slow], tool_timeout=0.01
        )

    kinds = {s.name: (s.attributes or {}).get("error.type") for s in recorder.named("execute_tool")}
    assert kinds == {"execute_tool broken": "LookupError", "execute_tool slow": "timeout"}
    assert recorder.named("invoke_agent")[0].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("streamed", [False, True], ids=["polled", "streamed"])
async def test_timeout_of_a_wait_is_an_error_of_its_span(
    recorder: Recorder, streamed: bool
) -> None:
    """`error.type` is the class of the error, and the span has the run as it was seen last."""
    async with both(recorder, Hang()) as (client, assistant, thread):
        stream = client.runs.stream(thread, assistant_id=assistant, timeout=0.5)
        poll = client.runs.create_and_poll
        with pytest.raises(RunWaitTimeout):
            await (
                stream.until_done()
                if streamed
                else poll(thread, assistant_id=assistant, timeout=0.5)
            )
        await stream.aclose()

    root = recorder.named("invoke_agent")[0]
    assert (root.attributes or {})["error.type"] == "openai_runs.errors.RunWaitTimeout"
    assert (root.attributes or {})["openai_runs.run.status"] in {"queued", "in_progress"}


@pytest.mark.parametrize("streamed", [False, True], ids=["polled", "streamed"])
async def test_cancelled_call_ends_its_spans_without_an_error(
    recorder: Recorder, streamed: bool
) -> None:
    """A cancelled task leaves no span open, and none of the run's is an error."""
    async with both(recorder, Hang()) as (client, assistant, thread):
        async with anyio.create_task_group() as group:

            def stop(_: object) -> None:
                group.cancel_scope.cancel()

            async def work() -> None:
                if streamed:
                    async with client.runs.stream(
                        thread, assistant_id=assistant, on_status=stop
                    ) as it:
                        await it.until_done()
                else:
                    await client.runs.create_and_poll(
                        thread, assistant_id=assistant, on_status=stop
                    )

            group.start_soon(work)
        root = recorder.named("invoke_agent")[0]
        assert root.kind.name == "CLIENT"
        assert root.status.status_code is StatusCode.UNSET
        run_id = (root.attributes or {})["openai_runs.run.id"]
        await client.runs.cancel_and_wait(str(run_id), thread_id=thread)
    assert [s.kind.name for s in recorder.named("invoke_agent")] == ["CLIENT", "INTERNAL"]


async def test_generator_left_in_the_middle_detaches_no_foreign_context(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A text iterator closed by another task breaks no context, and its span ends."""
    async with both(recorder, Say([*ANSWER])) as (client, assistant, thread):
        stream = client.runs.stream(thread, assistant_id=assistant)
        texts = stream.text_deltas()
        assert await anext(texts)
        async with anyio.create_task_group() as group:
            group.start_soon(stream.aclose)
        await texts.aclose()  # type: ignore[attr-defined]
        assert len([s for s in recorder.named("invoke_agent") if s.kind.name == "CLIENT"]) == 1
    assert "detach" not in caplog.text


async def test_two_runs_at_once_are_two_traces(recorder: Recorder) -> None:
    """Runs of one client at the same time share connections and polls, and mix no spans."""
    async with both(recorder, CALLS, CALLS, Say(ANSWER), Say(ANSWER)) as (client, assistant, one):
        two = await client.threads.create(messages=[{"role": "user", "content": QUESTION}])
        recorder.exporter.clear()
        async with anyio.create_task_group() as group:
            for thread in (one, two.id):
                group.start_soon(work, client, thread, assistant)

    traces: dict[int, set[object]] = {}
    for span in recorder.spans:
        assert span.context is not None
        thread_id = (span.attributes or {}).get("gen_ai.conversation.id")
        traces.setdefault(span.context.trace_id, set()).add(thread_id)
    found = [ids - {None} for ids in traces.values()]
    assert found in ([{one}, {two.id}], [{two.id}, {one}])


async def work(client: AsyncClient, thread: str, assistant: str) -> None:
    """Do one run with tools."""
    await client.runs.run_tools(thread, assistant_id=assistant, tools=[weather, rain])


@pytest.mark.parametrize("streamed", [False, True], ids=["polled", "streamed"])
async def test_no_content_and_no_key_is_in_spans(recorder: Recorder, streamed: bool) -> None:
    """Texts, instructions, arguments, outputs and the key are in no span, of either side."""
    await converse(recorder, streamed=streamed, capture_content=False)

    found = recorder.text()
    assert [text for text in (*TEXTS, KEY) if text in found] == []


async def test_content_is_in_spans_where_asked_for(recorder: Recorder) -> None:
    """`capture_content=True` shows all of it, and still no key."""
    await converse(recorder, streamed=True, capture_content=True)

    found = recorder.text().replace('\\\\\\"', '"').replace('\\"', '"')
    assert [text for text in TEXTS if text not in found] == []
    assert KEY not in found


async def converse(recorder: Recorder, *, streamed: bool, capture_content: bool) -> None:
    """Do one run with two tools."""
    async with both(recorder, CALLS, Say(ANSWER), capture_content=capture_content) as (c, a, t):
        if streamed:
            async with c.runs.stream(t, assistant_id=a, tools=[weather, rain]) as stream:
                await stream.result()
        else:
            await work(c, t, a)
