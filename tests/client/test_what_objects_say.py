"""Objects say what they are and how they are used, and `help` shows what is taken."""

import inspect
from contextlib import AsyncExitStack
from operator import attrgetter
from typing import Any

import pytest

from openai_runs import AsyncClient
from tests.client.test_wrong_use import (
    AFTERWARDS,
    LINE,
    LISTED,
    STREAM,
    URL,
    listed,
    mapped,
    over,
    stream,
    streamed,
)
from tests.test_docstrings import RESOURCES

__all__ = ["stream"]


@pytest.mark.parametrize("name", ["runs.create", "threads.create", "messages.list"])
def test_call_that_is_not_awaited_has_the_name_that_was_called(name: str) -> None:
    """In Python's warning for a coroutine, and in the repr of a list."""
    call = attrgetter(name)(AsyncClient(URL))
    given = {} if name == "threads.create" else {"thread_id": "thread_1"}
    made = call(**given, **(STREAM if name == "runs.create" else {}))

    assert f"client.{name}" in repr(made)
    if inspect.iscoroutine(made):
        made.close()


async def test_objects_say_what_they_are_and_how_they_are_used(stream: Any) -> None:
    """The client, its resources, lists, streams, batches and waits, before and after."""
    run_id = stream.run.id if stream.run else (await anext(stream)).data.id
    shown = [repr(stream)]
    await over(stream)
    shown.append(repr(stream))
    await stream.aclose()
    shown.append(repr(stream))

    assert shown == [
        f"<RunStream of {run_id}: open; use `async for`>",
        f"<RunStream of {run_id}: read to its end; {AFTERWARDS}>",
        f"<RunStream of {run_id}: closed; {AFTERWARDS}>",
    ]


async def test_client_says_what_it_is() -> None:
    """Where it sends, whether it is open, and how an embedded server is started."""
    client, local = AsyncClient(URL, "secret"), AsyncClient.local()
    pairs = [("run_1", "thread_1"), ("run_2", "thread_1")]

    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        completed = await stack.enter_async_context(client.runs.as_completed(pairs))
        shown = {
            repr(client): f"<AsyncClient of {URL}>",
            repr(local): "<AsyncClient of a local server; not started: use `async with`>",
            repr(client.beta): "<client.beta: assistants, threads, under the official SDK's names>",
            repr(client.messages): f"<client.messages of {URL}: create, retrieve, update, list, "
            "delete>",
            repr(client.runs.steps): f"<client.runs.steps of {URL}: retrieve, list>",
            repr(local.runs.steps): "<client.runs.steps of a local server: retrieve, list>",
            repr(listed(client)): f"<{LISTED}: not sent; use `async for`, or `await` it for one "
            "page>",
            repr(streamed(client)): "<RunStream of a new run: not opened; use `async with`>",
            repr(mapped(client)): "<RunMap: not begun; use `async with` and `async for`>",
            repr(completed): "<CompletedRuns: 0 of 2 returned; use `async for`>",
        }
    shown[repr(client)] = f"<AsyncClient of {URL}; closed>"

    assert list(shown) == list(shown.values())
    assert all(len(text) <= 2 * LINE for text in shown)


@pytest.mark.parametrize("resource", RESOURCES)
def test_help_shows_every_keyword(resource: str) -> None:
    """By its name and type, as it is declared; nothing hides in `**arguments`."""
    owner = attrgetter(resource)(AsyncClient(URL))
    methods = dict(inspect.getmembers(owner, inspect.ismethod))
    signatures = {
        name: inspect.signature(method) for name, method in methods.items() if name[0] != "_"
    }

    hidden = {
        name: parameter
        for name, signature in signatures.items()
        for parameter in signature.parameters.values()
        if parameter.kind is parameter.VAR_KEYWORD
    }
    assert not hidden
    assert all("timeout" in one.parameters for one in signatures.values())


def test_signature_says_what_is_taken() -> None:
    """A keyword that is left out is UNSET, and those of the method itself come first."""
    signature = inspect.signature(AsyncClient(URL).threads.update)

    assert str(signature).startswith(
        "(thread_id: 'str', *, tool_resources: 'RequestToolResources | JSONObject | None' = UNSET, "
        "metadata: 'Mapping[str, str] | None' = UNSET, timeout: 'float | None' = UNSET, "
    )
    assert "timeout" in inspect.signature(AsyncClient(URL).request).parameters


def test_objects_of_async_code_are_true() -> None:
    """`if stream:` asks neither for a length nor for an item."""
    client = AsyncClient(URL)

    assert all(map(bool, [client, client.runs, listed(client), streamed(client), mapped(client)]))
