"""Wrong use is answered with the right one: in a line or two, and in names that users know."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from openai_runs import APIConnectionError, AsyncClient, ConfigError, await_run

URL = "http://127.0.0.1:9/v1"
LINE = 80
LISTED = "client.runs.list(...)"
STREAM = {"assistant_id": "asst_1"}


def in_sync_with(value: Any) -> object:
    """Enter a block of sync code."""
    with value as entered:
        return entered


def as_function(value: Any) -> object:
    """Call what is no function."""
    return value()


def listed(client: Any) -> Any:
    """Return a list call."""
    return client.runs.list("thread_1")


def streamed(client: Any) -> Any:
    """Return a stream that is not opened."""
    return client.runs.stream("thread_1", **STREAM)


def mapped(client: Any) -> Any:
    """Return a batch that is not begun."""
    return client.runs.map([], concurrency=1)


SYNC: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "client-with": (in_sync_with, TypeError, "AsyncClient needs `async with`, not `with`"),
    "client-keyword": (
        lambda _: AsyncClient(base_ulr=URL),  # type: ignore[call-arg]  # on purpose
        TypeError,
        "AsyncClient() got an unexpected keyword argument 'base_ulr'. Did you mean 'base_url'?",
    ),
    "local-keyword": (
        lambda _: AsyncClient.local(modelurl=URL),  # type: ignore[call-arg]  # on purpose
        TypeError,
        (
            "AsyncClient.local() got an unexpected keyword argument 'modelurl'. "
            "Did you mean 'model_url'?"
        ),
    ),
    "options-keyword": (
        lambda client: client.with_options(max_retrys=1),
        TypeError,
        (
            "client.with_options() got an unexpected keyword argument 'max_retrys'. "
            "Did you mean 'max_retries'?"
        ),
    ),
    "list-for": (
        lambda client: [*listed(client)],
        TypeError,
        f"{LISTED} is read with `async for`, not with `for`; `await` it for one page",
    ),
    "list-in": (
        lambda client: "run_1" in listed(client),
        TypeError,
        f"{LISTED} is read with `async for`, not with `for`; `await` it for one page",
    ),
    "list-sorted": (
        lambda client: sorted(listed(client)),
        TypeError,
        f"{LISTED} is read with `async for`, not with `for`; `await` it for one page",
    ),
    "list-next": (
        lambda client: next(listed(client)),
        TypeError,
        f"{LISTED} is read with `async for`, not with `next`; `await` it for one page",
    ),
    "list-len": (
        lambda client: len(listed(client)),
        TypeError,
        f"{LISTED} has no length: its items come one by one; `await` it for one page",
    ),
    "list-index": (
        lambda client: listed(client)[0],
        TypeError,
        f"{LISTED} has no index: its items come one by one; `await` it for one page",
    ),
    "list-with": (
        lambda client: in_sync_with(listed(client)),
        TypeError,
        f"{LISTED} is no context manager: use `async for`, or `await` it for one page",
    ),
    "list-not-awaited": (
        lambda client: listed(client).data,
        AttributeError,
        f"{LISTED} has no attribute 'data'; was an await forgotten? page = await {LISTED}",
    ),
    "list-attribute": (
        lambda client: listed(client).banana,
        AttributeError,
        f"{LISTED} has no attribute 'banana'",
    ),
    "list-of-steps": (
        lambda client: [*client.runs.steps.list("run_1", thread_id="thread_1")],
        TypeError,
        (
            "client.runs.steps.list(...) is read with `async for`, not with `for`; "
            "`await` it for one page"
        ),
    ),
    "list-keyword": (
        lambda client: client.messages.list("thread_1", oder="asc"),
        TypeError,
        "client.messages.list() got an unexpected keyword argument 'oder'. Did you mean 'order'?",
    ),
    "stream-for": (
        lambda client: [*streamed(client)],
        TypeError,
        "a RunStream is read with `async for`, not with `for`",
    ),
    "stream-with": (
        lambda client: in_sync_with(streamed(client)),
        TypeError,
        "a RunStream needs `async with`, not `with`",
    ),
    "stream-len": (
        lambda client: len(streamed(client)),
        TypeError,
        "a RunStream has no length: its items come one by one",
    ),
    "map-for": (
        lambda client: [*mapped(client)],
        TypeError,
        "client.runs.map(...) is read with `async for`, not with `for`",
    ),
    "map-with": (
        lambda client: in_sync_with(mapped(client)),
        TypeError,
        "client.runs.map(...) needs `async with`, not `with`",
    ),
    "as-completed-without-a-loop": (
        lambda client: client.runs.as_completed([("run_1", "thread_1")]),
        RuntimeError,
        "client.runs.as_completed(...) needs a running event loop: call it in an `async def`",
    ),
    "resource-called": (
        lambda client: as_function(client.runs),
        TypeError,
        "client.runs is no function: call client.runs.create(...)",
    ),
    "resource-iterated": (
        lambda client: [*client.messages],
        TypeError,
        "client.messages cannot be iterated: use `async for` with client.messages.list(...)",
    ),
    "resource-without-a-list-iterated": (
        lambda client: [*client.threads],
        TypeError,
        "client.threads cannot be iterated: this API has no list of them",
    ),
    "method-misspelt": (
        lambda client: client.threads.create_and_runs,
        AttributeError,
        "client.threads has no attribute 'create_and_runs'. Did you mean 'create_and_run'?",
    ),
    "method-unknown": (
        lambda client: client.runs.banana,
        AttributeError,
        "client.runs has no attribute 'banana'",
    ),
    "argument-missing": (
        lambda client: client.runs.create("thread_1"),
        TypeError,
        "client.runs.create() missing 1 required keyword-only argument: 'assistant_id'",
    ),
    "argument-by-place": (
        lambda client: client.runs.retrieve("run_1", "thread_1"),
        TypeError,
        "client.runs.retrieve() takes 2 positional arguments but 3 were given",
    ),
    "stream-keyword": (
        lambda client: client.runs.stream("thread_1", asistant_id="a", **STREAM),
        TypeError,
        (
            "client.runs.stream() got an unexpected keyword argument 'asistant_id'. "
            "Did you mean 'assistant_id'?"
        ),
    ),
}


async def with_forgotten(client: Any, use: Callable[[Any], Any]) -> None:
    """Use a coroutine in place of what it returns."""
    coroutine = client.runs.create("thread_1", **STREAM)
    try:
        await use(coroutine)
    finally:
        coroutine.close()


async def in_async_with(value: Any) -> None:
    """Enter a block of async code."""
    async with value:
        pass


async def over(value: Any) -> None:
    """Iterate in async code."""
    async for _ in value:
        pass


ASYNC: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "create-keyword": (
        lambda client: client.runs.create("thread_1", **STREAM, instrctions="x"),
        TypeError,
        (
            "client.runs.create() got an unexpected keyword argument 'instrctions'. "
            "Did you mean 'instructions'?"
        ),
    ),
    "retrieve-keyword": (
        lambda client: client.runs.retrieve("run_1", thread_id="thread_1", timeot=1),
        TypeError,
        (
            "client.runs.retrieve() got an unexpected keyword argument 'timeot'. "
            "Did you mean 'timeout'?"
        ),
    ),
    "keyword-like-none": (
        lambda client: client.threads.create(zzz=1),
        TypeError,
        "client.threads.create() got an unexpected keyword argument 'zzz'",
    ),
    "stream-awaited": (
        streamed,
        TypeError,
        "a RunStream is not awaited: use `async with` or `async for`",
    ),
    "map-awaited": (
        mapped,
        TypeError,
        "client.runs.map(...) is not awaited: use `async with` or `async for`",
    ),
    "list-async-with": (
        lambda client: in_async_with(listed(client)),
        TypeError,
        f"{LISTED} is no context manager: use `async for`, or `await` it for one page",
    ),
    "resource-async-for": (
        lambda client: over(client.runs),
        TypeError,
        "client.runs cannot be iterated: use `async for` with client.runs.list(...)",
    ),
    "wait-for-a-coroutine": (
        lambda client: with_forgotten(client, client.runs.wait),
        TypeError,
        "run must be a Run or a run id, got coroutine; was an await forgotten?",
    ),
    "await-run-of-a-coroutine": (
        lambda client: with_forgotten(client, lambda run: await_run(client, run)),
        TypeError,
        "run must be a Run or a run id, got coroutine; was an await forgotten?",
    ),
    "result-of-a-coroutine": (
        lambda client: with_forgotten(client, client.runs.result),
        TypeError,
        "run must be a Run, got coroutine; was an await forgotten?",
    ),
    "result-of-an-id": (
        lambda client: client.runs.result("run_1"),
        TypeError,
        "run must be a Run, got str",
    ),
    "coroutine-as-id": (
        lambda client: with_forgotten(client, client.threads.retrieve),
        TypeError,
        "thread_id must be a string, got coroutine; was an await forgotten?",
    ),
    "list-as-id": (
        lambda client: client.threads.retrieve(listed(client)),
        TypeError,
        "thread_id must be a string, got AsyncPaginator; was an await forgotten?",
    ),
}


def check(error: Exception, text: str) -> None:
    """Compare the text, which has no private name in it and fits two lines of a terminal."""
    assert str(error) == text
    assert len(f"{type(error).__name__}: {text}") <= 2 * LINE
    assert not re.search(r"\b_\w|\b(Runs|Threads|Messages|Steps|Assistants)\b", text)


@pytest.mark.parametrize("name", SYNC)
def test_wrong_use_in_sync_code_is_answered(name: str) -> None:
    """At once, where Python would raise as well."""
    use, kind, text = SYNC[name]

    with pytest.raises(kind) as caught:
        use(AsyncClient(URL))

    check(caught.value, text)


@pytest.mark.parametrize("name", ASYNC)
async def test_wrong_use_in_async_code_is_answered(name: str) -> None:
    """Before anything is sent."""
    use, kind, text = ASYNC[name]

    async with AsyncClient(URL) as client:
        with pytest.raises(kind) as caught:
            await use(client)

    check(caught.value, text)


@pytest.fixture
async def stream() -> AsyncIterator[Any]:
    """Yield a stream of the embedded server's that is open."""
    async with AsyncClient.local() as client:
        assistant = await client.assistants.create(model="echo")
        thread = await client.threads.create(messages=[{"role": "user", "content": "Hi"}])
        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            yield stream


AFTERWARDS = "use `await stream.result()`, or `stream.snapshot`"


async def test_stream_is_iterated_once(stream: Any) -> None:
    """A second loop would see nothing; the result is still there."""
    text = f"this stream was read to its end, and its events come once; {AFTERWARDS}"

    await over(stream)

    for again in (stream, stream.text_deltas()):
        with pytest.raises(RuntimeError) as caught:
            await over(again)
        check(caught.value, text)
    await stream.until_done()
    assert (await stream.result()).text == "Hi"


async def test_stream_that_was_left_is_iterated_no_more(stream: Any) -> None:
    """What was read until then is in the snapshot, and the result waits for the run."""
    text = f"this stream was closed before its end, and its events come once; {AFTERWARDS}"

    async for _ in stream:
        break
    await stream.aclose()

    with pytest.raises(RuntimeError) as caught:
        await over(stream)
    check(caught.value, text)
    assert (await stream.result()).text == "Hi"


async def test_loop_over_a_stream_goes_on_after_a_break(stream: Any) -> None:
    """As long as it has not come to the end."""
    async for _ in stream:
        break
    async for _ in stream:
        pass

    assert stream.snapshot.text == "Hi"


def test_client_in_a_second_event_loop_is_an_error() -> None:
    """As after a second `asyncio.run`."""
    client = AsyncClient(URL, max_retries=0)

    async def use() -> None:
        await client.threads.retrieve("thread_1")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        with pytest.raises(APIConnectionError):
            first.run(use())
        with pytest.raises(ConfigError) as caught:
            second.run(use())
        first.run(client.aclose())

    check(caught.value, "this client was first used in another event loop; make one for each loop")
