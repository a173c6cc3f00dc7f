"""Objects say what they are and how they are used, and `help` shows what is taken."""

import importlib
import inspect
from contextlib import AsyncExitStack
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient, Progress
from openai_runs._protocol.snapshot.snapshot import Snapshot
from openai_runs.batch import Batch
from openai_runs.conversations import Conversations
from openai_runs.relay import sse
from openai_runs.server import EchoBackend, LocalServer, ScriptedBackend
from openai_runs.testing import FaultProxy, RunsServer
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
from tests.test_public_api import MODULES

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
        "metadata: 'Metadata | None' = UNSET, timeout: 'float | None' = UNSET, "
    )
    assert "timeout" in inspect.signature(AsyncClient(URL).request).parameters
    azure = [*inspect.signature(AsyncClient.azure).parameters]
    assert azure[:4] == ["endpoint", "credential", "api_version", "organization"]
    assert azure[3:] == [*inspect.signature(AsyncClient).parameters][2:]


def test_objects_of_async_code_are_true() -> None:
    """`if stream:` asks neither for a length nor for an item."""
    client = AsyncClient(URL)

    assert all(map(bool, [client, client.runs, listed(client), streamed(client), mapped(client)]))


NEVER_MADE = {"SystemClock", "ApiRunner"}
"""Classes of which no user prints an object."""


@pytest.mark.parametrize("module", MODULES)
def test_no_object_is_printed_as_its_address(module: str) -> None:
    """Whatever users get or make says what it is: all but protocols and lists of constants."""
    values = [
        getattr(importlib.import_module(module), name)
        for name in vars(importlib.import_module(module))["__all__"]
    ]
    silent = {
        kind.__name__
        for kind in values
        if isinstance(kind, type)
        and getattr(kind, "__repr__", None) is object.__repr__
        and not getattr(kind, "_is_protocol", False)
        and not {name for name in vars(kind) if name.isupper()}
    }

    assert silent <= NEVER_MADE


async def test_objects_around_the_client_say_what_they_are(tmp_path: Path) -> None:
    """Servers, proxies, conversations, batches and backends."""
    client = AsyncClient(URL)
    file = str(tmp_path / "some.db")
    chats = Conversations(client, assistant_id="asst_1", store=file)
    frames = sse(streamed(client))
    shown = {
        repr(LocalServer()): "<LocalServer at no address: not started; use `async with`>",
        repr(RunsServer()): "<RunsServer at no address: not started; use `with`>",
        repr(FaultProxy(URL)): "<FaultProxy of 127.0.0.1:9: not started; use `async with`>",
        repr(chats): f"<Conversations of asst_1 in SQLiteStore({file!r})>",
        repr(chats.reply("ada", "Hi")): "<Reply to 'ada': not opened; use `async with`>",
        repr(frames): "<Frames of <RunStream of a new run: not opened; use `async with`>>",
        repr(Batch(client, checkpoint=file)): f"<Batch in {file!r}: 0 done, 0.0/s>",
        repr(ScriptedBackend(["a", "b"])): "<ScriptedBackend: 2 turns left, 0 calls made>",
        repr(EchoBackend()): "EchoBackend()",
        repr(Progress(10)): "<Progress: 0 of 10 done, 0.0/s>",
        repr(Snapshot()): "Snapshot()",
    }

    assert list(shown) == list(shown.values())
