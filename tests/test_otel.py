"""`openai_runs.otel`: spans of a run are one trace, hold no content unless asked, and never a key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from openai_runs import AsyncClient, RunWaitTimeout, await_run
from openai_runs.otel import Tracing
from openai_runs.server import (
    CallTools,
    ChatBackend,
    Fail,
    Hang,
    LocalServer,
    Say,
    ScriptedBackend,
    ScriptedTurn,
)
from openai_runs.server import Call as ToolCall

KEY = "sk-not-to-be-seen-0123456789"
QUESTION = "How warm is Paris?"
ANSWER = "It is mild, and it rains."
TEXTS = (QUESTION, ANSWER, "Be brief.", "18 degrees", "wet as ever", '"city"')


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


class Recorder:
    """The spans of a test."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def tracing(self, *, capture_content: bool = False) -> Tracing:
        return Tracing(capture_content=capture_content, tracer_provider=self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    def text(self) -> str:
        return "".join(span.to_json() for span in self.spans)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    found = Recorder()
    yield found
    found.provider.shutdown()


@asynccontextmanager
async def both(
    recorder: Recorder, *script: ScriptedTurn, capture_content: bool = False
) -> AsyncIterator[tuple[AsyncClient, str, str]]:
    """Yield a traced client of a traced server that plays `script`, an assistant and a thread."""
    tracing = recorder.tracing(capture_content=capture_content)
    server = LocalServer(backend=ScriptedBackend([*script]), api_key=KEY, tracing=tracing)
    async with server, AsyncClient(server.url, KEY, tracing=tracing) as client:
        assistant = await client.assistants.create(model="m-1", instructions="Be brief.")
        thread = await client.threads.create(messages=[{"role": "user", "content": QUESTION}])
        recorder.exporter.clear()
        yield client, assistant.id, thread.id


def tree(spans: Sequence[ReadableSpan], ids: dict[str, str]) -> list[str]:
    """Return the spans as indented lines: kind and name, ids by what they are."""
    children: dict[int | None, list[ReadableSpan]] = {}
    known = {span.context.span_id for span in spans if span.context}
    for span in spans:
        parent = span.parent.span_id if span.parent else None
        children.setdefault(parent if parent in known else None, []).append(span)

    def lines(parent: int | None, depth: int) -> Iterator[str]:
        for span in children.get(parent, []):
            name = span.name
            for there, word in ids.items():
                name = name.replace(there, word)
            yield "  " * depth + f"{span.kind.name} {name}"
            assert span.context is not None
            yield from lines(span.context.span_id, depth + 1)

    return [*lines(None, 0)]


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
        with pytest.raises(RunWaitTimeout):
            if streamed:
                async with client.runs.stream(thread, assistant_id=assistant, timeout=0.5) as it:
                    await it.until_done()
            else:
                await client.runs.create_and_poll(thread, assistant_id=assistant, timeout=0.5)

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
        assert await anext(texts)  # type: ignore[arg-type]
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
                group.start_soon(lambda: work(client, thread, assistant), name=thread)  # noqa: B023

    traces: dict[int, set[object]] = {}
    for span in recorder.spans:
        assert span.context is not None
        thread_id = (span.attributes or {}).get("gen_ai.conversation.id")
        traces.setdefault(span.context.trace_id, set()).add(thread_id)
    assert sorted(map(len, (found - {None} for found in traces.values()))) == [1, 1]


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


async def listening(seen: list[dict[str, str]]) -> tuple[web.AppRunner, str]:
    """Return a server that keeps the headers of its requests, and answers as a model does."""

    async def answer(request: web.Request) -> web.Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        message = {"role": "assistant", "content": ANSWER}
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_trace_goes_on_to_the_model_endpoint(recorder: Recorder) -> None:
    """The endpoint gets the `traceparent` of the `chat` span, in the trace of the create."""
    seen: list[dict[str, str]] = []
    runner, url = await listening(seen)
    tracing = recorder.tracing()
    async with (
        LocalServer(backend=ChatBackend(url), tracing=tracing) as server,
        AsyncClient(server.url, None, tracing=tracing) as client,
    ):
        assistant = await client.assistants.create(model="m-1")
        await client.threads.create_and_run_poll(assistant_id=assistant.id)
    await runner.cleanup()

    (chat,) = recorder.named("chat")
    (root,) = [s for s in recorder.named("invoke_agent") if s.kind.name == "CLIENT"]
    assert chat.context is not None
    assert root.context is not None
    _, trace_id, span_id, _ = seen[-1]["traceparent"].split("-")
    assert int(trace_id, 16) == chat.context.trace_id == root.context.trace_id
    assert int(span_id, 16) == chat.context.span_id


async def test_redirect_to_another_origin_gets_no_trace(recorder: Recorder) -> None:
    """Only the server of the base URL is sent a `traceparent`: no redirect is followed."""
    seen: list[dict[str, str]] = []
    elsewhere, url = await listening(seen)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{url}/v1/threads/t")

    app = web.Application()
    app.router.add_get("/v1/threads/{id}", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    async with AsyncClient(base, KEY, tracing=recorder.tracing(), max_retries=0) as client:
        with pytest.raises(Exception, match="307|redirect"):
            await client.threads.retrieve("t")
    await runner.cleanup()
    await elsewhere.cleanup()

    assert seen == []


async def test_header_of_the_caller_wins(recorder: Recorder) -> None:
    """A `traceparent` given in `extra_headers` is sent as it is."""
    seen: list[dict[str, str]] = []
    runner, url = await listening(seen)
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with AsyncClient(f"{url}/v1", None, tracing=recorder.tracing()) as client:
        await client.request("GET", "/anything", extra_headers={"Traceparent": given})
    await runner.cleanup()

    assert seen[0]["traceparent"] == given


async def test_run_works_where_no_sdk_is_set_up() -> None:
    """With OpenTelemetry's API alone a traced run is a run, and no header goes out."""
    seen: list[dict[str, str]] = []
    runner, url = await listening(seen)
    async with (
        LocalServer(backend=ChatBackend(url), tracing=Tracing()) as server,
        AsyncClient(server.url, None, tracing=Tracing()) as client,
    ):
        assistant = await client.assistants.create(model="m-1")
        run = await client.threads.create_and_run_poll(assistant_id=assistant.id)
    await runner.cleanup()

    assert run.status == "completed"
    assert "traceparent" not in seen[-1]


@pytest.mark.parametrize("bad", [True, "otel", object()], ids=["bool", "text", "object"])
def test_tracing_of_another_kind_is_refused(bad: object) -> None:
    """The message names what is meant, before anything is sent or served."""
    with pytest.raises(TypeError, match="openai_runs.otel.Tracing"):
        AsyncClient("http://127.0.0.1:1/v1", None, tracing=bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="openai_runs.otel.Tracing"):
        LocalServer(tracing=bad)  # type: ignore[arg-type]


def python(script: str) -> str:
    """Return what a Python of its own prints."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return done.stdout


def test_import_loads_no_opentelemetry() -> None:
    """Client and server are imported without it; only `openai_runs.otel` loads it."""
    script = "import sys, openai_runs.server; openai_runs.AsyncClient; print(*sys.modules)"

    assert not [name for name in python(script).split() if name.startswith("opentelemetry")]


def test_missing_extra_names_the_command_that_helps() -> None:
    """Without OpenTelemetry the import is a `ConfigError` with the pip command."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from openai_runs import ConfigError\n"
        "try: import openai_runs.otel\n"
        "except ConfigError as error: print(error)"
    )

    assert "pip install 'openai-runs[otel]'" in python(script)
