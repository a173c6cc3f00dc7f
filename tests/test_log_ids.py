"""Log records carry the ids they are about as attributes, under one set of names."""

import ast
import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from openai_runs import AsyncClient
from openai_runs._log_ids import LogIds, ids_of
from openai_runs.errors import NotFoundError
from openai_runs.testing import RunsServer
from tests.client.acting import client_of
from tests.support import Answer, HostileServer

PACKAGE = Path(__file__).resolve().parents[1] / "openai_runs"
LOGGERS = {"_LOG", "_logger"}
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
ABOUT = re.compile(
    r"\b(?:run_id|thread_id|request_id|call_id|assistant_id|_named|_ids|ids)\b"
    r"|\b(?:run|thread|claim\.run|request\.run|before\.run|call|start)\.(?:id|run_id)\b"
    r"|\bconnection\.name\b|\bwhat\b"
)
"""Among the arguments of a call: an id, or words that name one."""
ABOUT_NONE: dict[str, str] = {
    "batch/work.py": "rows, and nothing that was sent",
    "_client/core/background.py": "a task that serves many runs was cancelled by what it awaited",
    "server/backends/chat/negotiation.py": "an endpoint",
    "server/backends/routing.py": "an endpoint",
    "server/execution/engine.py": "all runs",
    "server/execution/trials.py": "all runs",
    "server/http/connection.py": "bytes that are no request",
    "server/http/health.py": "the file",
    "server/listening.py": "the server",
    "server/store/sqlite/files.py": "the file",
    "server/store/sqlite/mounts.py": "the file",
    "server/store/sqlite/opening.py": "the file",
    "server/store/sqlite/writer.py": "the file",
    "server/store/postgres/database.py": "the database",
    "server/store/postgres/jobs.py": "the queue",
    "server/store/postgres/listener.py": "the database",
    "server/store/postgres/opening.py": "the database",
    "server/execution/sweeps.py": "this process",
    "server/execution/shared_dispatch.py": "many runs",
    "conversations/access.py": "a record that cannot be read",
    "conversations/conversations.py": "a message, of which no run is known here",
    "web/chat.py": "the messages of all chats",
}
"""File -> what its records without ids are about."""


class Call(NamedTuple):
    """One log call of the package."""

    place: str
    message: str
    arguments: str
    extra: ast.expr | None


def calls(path: Path) -> Iterator[Call]:
    """Yield the log calls of a file; a message in a local name is found above the call."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        words: dict[int, str] = {}
        for node in ast.walk(function):
            match node:
                case ast.Assign(
                    targets=[ast.Name(id="words")], value=ast.Constant(value=str(text))
                ):
                    words[node.lineno] = text
        for node in ast.walk(function):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=logger), attr=method), args=arguments
                ) if logger in LOGGERS and method in METHODS:
                    first, *rest = arguments[1:] if method == "log" else arguments
                    above = [text for line, text in sorted(words.items()) if line < node.lineno]
                    message = first.value if isinstance(first, ast.Constant) else above[-1]
                    extra = next((k.value for k in node.keywords if k.arg == "extra"), None)
                    place = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                    yield Call(place, str(message), " ".join(map(ast.unparse, rest)), extra)


@functools.cache
def all_calls() -> dict[str, Call]:
    """Return the log calls of the package by place."""
    texts = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    loggers = [path for path, text in texts.items() if any(name in text for name in LOGGERS)]
    return {one.place: one for path in loggers for one in calls(path)}


def test_every_log_call_is_found() -> None:
    """The rules below hold of all calls, and no logger has a name that they do not know."""
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    loggers = re.findall(r"^(\w+)(?:: Final)? = logging\.getLogger\(", text, re.MULTILINE)
    written = re.findall(r"^\s+(?:_LOG|_logger)\.(?!isEnabledFor)\w+\(", text, re.MULTILINE)

    assert set(loggers) == LOGGERS
    assert len(all_calls()) == len(written)


def test_message_that_names_an_id_gives_it_as_attribute() -> None:
    """A JSON formatter has it as a field, and nobody needs to parse the words."""
    bare = [
        one.place
        for one in all_calls().values()
        if ABOUT.search(one.arguments) and one.extra is None
    ]

    assert bare == []


def test_record_without_ids_is_about_no_single_run() -> None:
    """The files that have such calls are listed, with what those are about."""
    bare = {place.partition(":")[0] for place, one in all_calls().items() if one.extra is None}

    assert bare == ABOUT_NONE.keys()


def test_attributes_have_one_set_of_names() -> None:
    """No `runId` beside a `run_id`, and none that a record has already."""
    keys = {
        str(key.value)
        for one in all_calls().values()
        if isinstance(one.extra, ast.Dict)
        for key in one.extra.keys
        if isinstance(key, ast.Constant)
    }
    names = LogIds.__annotations__.keys()

    assert keys - {"is_outage"} <= names  # by that the command line knows which line it shows
    assert names & vars(logging.makeLogRecord({})).keys() == set()


def ids_in_words(record: logging.LogRecord) -> set[str]:
    """Return the ids of our server that a message has."""
    return set(re.findall(r"\b(?:run|thread|req|call|asst)_\w{6,}", record.getMessage()))


def attributes(record: logging.LogRecord) -> dict[str, Any]:
    """Return the ids a record carries."""
    return {name: value for name, value in vars(record).items() if name in LogIds.__annotations__}


async def test_records_of_a_run_carry_its_ids(
    runs_server: RunsServer, runs_client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Client, tools and server: what the words name, the attributes have."""

    def look_up(order: str) -> str:
        """Look up an order."""
        raise LookupError(order)

    caplog.set_level(logging.DEBUG, "openai_runs")
    runs_server.call_tool("look_up", {"order": "1042"}, id="call_of_a_test")
    runs_server.reply("No such order.")
    assistant = await runs_client.assistants.create(model="m")
    thread = await runs_client.threads.create()
    result = await runs_client.runs.run_tools(thread.id, assistant_id=assistant.id, tools=[look_up])

    records = [one for one in caplog.records if one.name.startswith("openai_runs")]
    assert [one for one in records if ids_in_words(one) - set(attributes(one).values())] == []
    tools = [attributes(one) for one in records if one.name == "openai_runs.tools"]
    ids = {"run_id": result.run.id, "thread_id": thread.id}
    assert tools == [{**ids, "call_id": "call_of_a_test"}] * 2
    (ended,) = [one for one in records if "completed after" in one.getMessage()]
    assert attributes(ended) == ids


async def test_retried_request_is_logged_with_its_run_and_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line about an attempt has the id that the server's own log has."""
    answers = [
        Answer(status=503, headers={"x-request-id": "req_of_a_test"}, body=b"{}"),
        Answer(json={"id": "run_1", "thread_id": "thread_1", "status": "completed"}),
    ]
    caplog.set_level(logging.DEBUG, "openai_runs.client")
    async with HostileServer(lambda _: answers.pop(0)) as server, client_of(server) as client:
        await client.runs.retrieve("run_1", thread_id="thread_1")

    (record,) = [one for one in caplog.records if "again in" in one.getMessage()]
    assert attributes(record) == {
        "request_id": "req_of_a_test",
        "run_id": "run_1",
        "thread_id": "thread_1",
    }


def test_ids_of_an_error_are_those_it_names() -> None:
    """Of errors of ours alone; what they do not know is left out."""
    error = NotFoundError("no", status_code=404, headers={}, request_id="req_1")
    error.locate(thread_id="thread_1", run_id=None)
    foreign = LookupError()
    foreign.run_id = "run_1"  # type: ignore[attr-defined]

    assert ids_of(error) == {"request_id": "req_1", "thread_id": "thread_1"}
    assert ids_of(foreign) == {}
