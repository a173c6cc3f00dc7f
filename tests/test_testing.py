"""The pytest plugin does to a test what it says, and nothing else."""

import math
import threading
import time
import urllib.request
from typing import Any

import msgspec
import pytest

from openai_runs import (
    APIConnectionError,
    APITimeoutError,
    AsyncClient,
    BadRequestError,
    InternalServerError,
    RateLimitError,
    Run,
)
from openai_runs.server import Call
from openai_runs.testing import ReceivedRequest, RunsServer, Which

WEATHER = {"type": "function", "function": {"name": "weather"}}


async def run_once(client: AsyncClient, **arguments: Any) -> Run:
    """Return a settled run on a new thread."""
    assistant = await client.assistants.create(model="m", tools=[WEATHER])
    thread = await client.threads.create(messages=[{"role": "user", "content": "Hi!"}])
    return await client.runs.create_and_poll(thread.id, assistant_id=assistant.id, **arguments)


# --- what the model does


async def test_turns_are_taken_in_order_then_the_default(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Each model call takes the next turn; with none left the model says the default."""
    runs_server.reply("One.")
    runs_server.reply("Two.", delay=0.01)
    runs_server.default_reply = "That is all."

    runs = [await run_once(runs_client) for _ in range(3)]

    texts = [(await runs_client.runs.result(run)).text for run in runs]
    assert texts == ["One.", "Two.", "That is all."]


async def test_tool_calls_wait_for_their_outputs(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """One call or several, with a text, an id or broken arguments of the test's choice."""
    runs_server.call_tool("weather", {"city": "Oslo"}, id="call_1")
    runs_server.call_tools(Call("weather", "{broken"), Call("weather"), text="Let me see.")

    run = await run_once(runs_client)
    first = [(call.id, call.function.arguments) for call in run.tool_calls]
    outputs = [{"tool_call_id": "call_1", "output": "sunny"}]
    run = await runs_client.runs.submit_tool_outputs_and_poll(
        run.id, thread_id=run.thread_id, tool_outputs=outputs
    )

    assert first == [("call_1", '{"city":"Oslo"}')]
    assert [call.function.arguments for call in run.tool_calls] == ["{broken", "{}"]
    seen = runs_server.model_requests[-1].turns[0].tool_calls[0]
    assert (seen.function.name, seen.function.output) == ("weather", "sunny")


async def test_failed_run(runs_server: RunsServer, runs_client: AsyncClient) -> None:
    """`fail` ends the run as `failed` with that code and message."""
    runs_server.fail("rate_limit_exceeded", "Too many tokens.")

    run = await run_once(runs_client)

    assert run.status == "failed"
    assert run.last_error is not None
    assert (run.last_error.code, run.last_error.message) == (
        "rate_limit_exceeded",
        "Too many tokens.",
    )


@pytest.mark.parametrize("reason", ["max_completion_tokens", "max_prompt_tokens"])
async def test_incomplete_run(
    reason: Any, runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`incomplete` ends the run at that limit, with what was said before."""
    runs_server.incomplete(reason, text="Once upon a")

    run = await run_once(runs_client)

    assert run.status == "incomplete"
    assert run.incomplete_details is not None
    assert run.incomplete_details.reason == reason
    assert (await runs_client.runs.result(run)).text == "Once upon a"


async def test_hanging_run_can_be_cancelled(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`hang` keeps the run in progress until somebody ends it."""
    runs_server.hang(text="Well...")
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()
    run = await runs_client.runs.create(thread.id, assistant_id=assistant.id)

    run = await runs_client.runs.cancel_and_wait(run.id, thread_id=thread.id)

    assert run.status == "cancelled"


def test_hanging_run_expires_with_a_short_life() -> None:
    """Options of the server are passed on; synchronous tests can use the server, too."""
    with RunsServer(run_lifetime=1) as server:
        server.hang()
        made = [post(server, "/assistants", model="m"), post(server, "/threads")]
        run = post(server, f"/threads/{made[1]['id']}/runs", assistant_id=made[0]["id"])
        while run["status"] in {"queued", "in_progress"}:
            run = get(server, f"/threads/{made[1]['id']}/runs/{run['id']}")

    assert run["status"] == "expired"


# --- what goes wrong on the way


async def test_fault_answers_in_place_of_the_server(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """The status, headers and body are the test's; the server never saw the request."""
    client = runs_client.with_options(max_retries=0)
    body = {"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}
    runs_server.fault(429, headers={"retry-after": "7"}, json=body)

    with pytest.raises(RateLimitError) as caught:
        await client.threads.create()

    assert (caught.value.message, caught.value.retry_after) == ("Slow down.", 7)
    assert caught.value.code == "rate_limit_exceeded"


async def test_fault_after_the_work_leaves_the_run_behind(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """With `after` the run is stored, although its creator sees an error."""
    client = runs_client.with_options(max_retries=0)
    assistant = await client.assistants.create(model="m")
    thread = await client.threads.create()
    runs_server.fault(500, after=True)

    with pytest.raises(InternalServerError):
        await client.runs.create(thread.id, assistant_id=assistant.id)

    assert len((await client.runs.list(thread.id)).data) == 1


async def test_dropped_connection_before_and_after_the_work(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`drop` closes the connection, before the server's work or after it."""
    client = runs_client.with_options(max_retries=0)
    thread = await client.threads.create()
    path = "/threads/*/messages"
    runs_server.drop(path=path)
    runs_server.drop(path=path, after=True)

    for text in ("lost", "stored"):
        with pytest.raises(APIConnectionError):
            await client.messages.create(thread.id, role="user", content=text)

    stored = [message.text async for message in client.messages.list(thread.id)]
    assert stored == ["stored"]


async def test_default_client_survives_what_the_faults_do(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A lost answer to a create makes no second run."""
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()
    runs_server.drop(after=True, method="POST", path="/threads/*/runs")

    run = await runs_client.runs.create(thread.id, assistant_id=assistant.id)

    assert [one.id async for one in runs_client.runs.list(thread.id)] == [run.id]
    assert len(runs_server.seen("POST", "/threads/*/runs")) == 2


@pytest.mark.parametrize("after", [False, True])
async def test_hanging_connection_never_answers(
    after: bool, runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`hang_connection` holds the request until the client gives up."""
    client = runs_client.with_options(max_retries=0)
    runs_server.hang_connection(after=after)

    with pytest.raises(APITimeoutError):
        await client.threads.create(request_timeout=0.2)

    await client.threads.create()


def test_server_ends_although_a_connection_hangs() -> None:
    """Closing does not wait for requests that hang on purpose."""
    lost: list[Exception] = []

    def ask() -> None:
        try:
            post(server, "/threads")
        except OSError as error:
            lost.append(error)

    with RunsServer() as server:
        server.hang_connection()
        asking = threading.Thread(target=ask)
        asking.start()
        while not server.requests:
            time.sleep(0.01)
    asking.join()

    assert len(lost) == 1


async def test_delay_holds_the_request_then_lets_it_go(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A short delay is only waited for; a long one is a time-out, with the work done or not."""
    client = runs_client.with_options(max_retries=0)
    thread = await client.threads.create()
    runs_server.delay(0.01)
    await client.messages.create(thread.id, role="user", content="slow")
    runs_server.delay(60)
    runs_server.delay(60, after=True)

    for text in ("too slow", "stored"):
        with pytest.raises(APITimeoutError):
            await client.messages.create(thread.id, role="user", content=text, request_timeout=0.2)

    stored = [message.text async for message in client.messages.list(thread.id, order="asc")]
    assert stored == ["slow", "stored"]


async def test_after_keeps_what_the_server_refuses(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """Work that was refused was not done, so the refusal stands."""
    runs_server.fault(503, after=True)

    with pytest.raises(BadRequestError):
        await runs_client.threads.create(metadata={"key": "x" * 513})


async def test_faults_strike_as_often_as_told(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """`times` counts requests of that kind only, oldest fault first."""
    client = runs_client.with_options(max_retries=0)
    thread = await client.threads.create()
    runs_server.fault(503, times=2, method="get")
    runs_server.fault(429, times=math.inf, method="GET")

    statuses = []
    for _ in range(4):
        await client.threads.update(thread.id, metadata={})
        with pytest.raises((InternalServerError, RateLimitError)) as caught:
            await client.threads.retrieve(thread.id)
        statuses.append(caught.value.status_code)

    assert statuses == [503, 503, 429, 429]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, True),
        ({"method": "POST"}, True),
        ({"method": "post"}, True),
        ({"method": "GET"}, False),
        ({"path": "/threads/*/runs"}, True),
        ({"path": "/threads/thread_1/runs"}, True),
        ({"path": "runs"}, True),
        ({"path": "/runs"}, False),
        ({"path": "/threads/*/runs/*"}, False),
        ({"path": "/v1/threads/*/runs"}, False),
        ({"path": "runs", "method": "GET"}, False),
    ],
    ids=str,
)
def test_which_requests_match(which: Which, expected: bool) -> None:
    """A path is a pattern for the whole, or for the end."""
    request = ReceivedRequest(
        method="POST", path="/threads/thread_1/runs", query={}, headers={}, json=None
    )

    assert request.matches(which.get("method"), which.get("path")) is expected


# --- what was received


async def test_requests_are_kept_without_credentials(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """A failing test may print them."""
    client = runs_client.with_options(api_key="sk-secret", default_headers={"X-Trace": "7"})
    thread = await client.threads.create(metadata={"topic": "weather"})
    await client.messages.list(thread.id, limit=2)

    create, listing = runs_server.requests
    assert (create.method, create.path) == ("POST", "/threads")
    assert create.json == {"metadata": {"topic": "weather"}}
    assert create.headers["x-trace"] == "7"
    assert listing.query["limit"] == "2"
    assert listing.json is None
    assert "sk-secret" not in repr(runs_server.requests)
    assert runs_server.seen("GET", "messages") == [listing]


def post(server: RunsServer, path: str, **body: Any) -> Any:
    """Send a request as a program without an event loop does."""
    request = urllib.request.Request(
        server.url + path, msgspec.json.encode(body), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return msgspec.json.decode(answer.read())


def get(server: RunsServer, path: str) -> Any:
    """Fetch an object; the server holds the answer until its status changes."""
    request = urllib.request.Request(server.url + path, headers={"Prefer": "wait=5"})
    with urllib.request.urlopen(request) as answer:
        return msgspec.json.decode(answer.read())
