"""`openai_runs.otel`: where a trace goes on, and what there is without OpenTelemetry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from openai_runs import AsyncClient
from openai_runs.otel import Tracing
from openai_runs.server import ChatBackend, Hang, LocalServer, Say, ScriptedBackend
from tests.tracing import ANSWER, KEY, Recorder


@pytest.fixture
def recorder() -> Recorder:
    """Return an empty recorder."""
    return Recorder()


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
        raise web.HTTPTemporaryRedirect(url)

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

    assert "pip install 'opentelemetry-api" in python(script)


def test_serve_without_the_extra_names_the_command_that_helps() -> None:
    """`openai-runs serve --otel` is a usage error then that names the pip command."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "sys.argv = ['openai-runs', 'serve', '--otel', '--port', '0', '--db', '/dev/null/no.db']\n"
        "from openai_runs._cli import main\n"
        "sys.stderr = sys.stdout\n"
        "try: main()\n"
        "except SystemExit as end: print('exit', end.code)"
    )
    shown = " ".join(python(script).split())

    assert "pip install 'opentelemetry-api" in shown
    assert "exit 2" in shown


async def test_run_after_a_restart_begins_a_trace_of_its_own(
    recorder: Recorder, tmp_path: Path
) -> None:
    """The trace of a create is kept in memory: the next server's execution has no parent."""
    path, tracing = tmp_path / "runs.db", recorder.tracing()
    async with (
        LocalServer(path, ScriptedBackend([Hang()]), tracing=tracing) as server,
        AsyncClient(server.url, None) as client,
    ):
        assistant = await client.assistants.create(model="m-1")
        run = await client.threads.create_and_run(assistant_id=assistant.id)
    async with (
        LocalServer(path, ScriptedBackend([Say(ANSWER)]), tracing=recorder.tracing()) as server,
        AsyncClient(server.url, None) as client,
    ):
        assert (await client.runs.wait(run)).status == "completed"

    assert recorder.named("invoke_agent")[-1].parent is None
