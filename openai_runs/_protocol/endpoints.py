"""Endpoints: one row per operation, for the client's URLs and the server's routes.

Source: the OpenAPI description 2.3.0, 13 paths with 23 operations; the names are its
operation ids (`submitToolOuputsToRun` is spelled as there).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from openai_runs._protocol.create_marker import strip_marker, strip_markers
from openai_runs._protocol.lenient import decoder_for
from openai_runs._protocol.spec import (
    QueryValue,
    RequestSpec,
    Retry,
    check_id,
    encode_body,
    encode_query,
)
from openai_runs.types.assistants import Assistant, CreateAssistant, UpdateAssistant
from openai_runs.types.base import Deleted, Page, Request
from openai_runs.types.messages import CreateMessage, Message, UpdateMessage
from openai_runs.types.runs import (
    CreateRun,
    CreateThreadAndRun,
    Run,
    SubmitToolOutputs,
    UpdateRun,
)
from openai_runs.types.steps import RunStep
from openai_runs.types.threads import CreateThread, Thread, UpdateThread

__all__ = [
    "CANCEL_RUN",
    "CREATE_ASSISTANT",
    "CREATE_MESSAGE",
    "CREATE_RUN",
    "CREATE_THREAD",
    "CREATE_THREAD_AND_RUN",
    "DELETE_ASSISTANT",
    "DELETE_MESSAGE",
    "DELETE_THREAD",
    "ENDPOINTS",
    "EXTENSIONS",
    "GET_ASSISTANT",
    "GET_MESSAGE",
    "GET_RUN",
    "GET_RUN_STEP",
    "GET_THREAD",
    "LIST_ALL_RUNS",
    "LIST_ASSISTANTS",
    "LIST_MESSAGES",
    "LIST_RUNS",
    "LIST_RUN_STEPS",
    "LIST_THREADS",
    "STREAM_RUN",
    "SUBMIT_TOOL_OUTPUTS",
    "UPDATE_ASSISTANT",
    "UPDATE_MESSAGE",
    "UPDATE_RUN",
    "UPDATE_THREAD",
    "Endpoint",
]

T = TypeVar("T")

_CURSOR: Final = ("limit", "order", "after", "before")


class Endpoint(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One operation of the API."""

    operation: str
    """The OpenAPI operation id."""
    method: str
    path: str
    """Below the base URL, with `{names}` for the ids."""
    answer: Any
    """The type of a 200 answer."""
    body: type[Request] | None = None
    """The closed Struct of the body; None where none is sent."""
    query: tuple[str, ...] = ()
    """Names of the query parameters."""
    retry: Retry = Retry.IDEMPOTENT
    deletes: str = ""
    """The `object` a delete answers with."""
    keeps_marker: bool = False
    """Whether the create marker stays on the runs of an answer, to verify a create by it."""
    ids: tuple[str, ...] = ()
    """The names of the ids in the path, in order; parsed from it."""
    pattern: str = ""
    """The path with `%s` for each id; made of it."""
    decode: Any = None
    """Reads an answer; made of its type."""

    def __post_init__(self) -> None:
        """Parse the path template once, and build the decoders."""
        ids = tuple(name for _, name, _, _ in string.Formatter().parse(self.path) if name)
        pattern = self.path.format_map(dict.fromkeys(ids, "%s"))
        for name, value in (("ids", ids), ("pattern", pattern)):
            msgspec.structs.force_setattr(self, name, value)
        # Built at import: msgspec inspects a type when its first decoder is built, and two
        # threads that do so at once crash the process (segmentation fault, msgspec 0.22.0). The
        # import lock keeps clients in two threads, or client and server, from doing so.
        decode: Callable[[bytes], Any] = decoder_for(self.answer).decode
        if not self.keeps_marker:
            decode = _without_marker(self.answer, decode)
        msgspec.structs.force_setattr(self, "decode", decode)
        if self.body is not None:
            msgspec.json.Decoder(self.body)

    def spec(
        self,
        ids: Mapping[str, str],
        *,
        query: Mapping[str, QueryValue] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> RequestSpec[T]:
        """Return the request for these ids.

        Raises:
            TypeError: An id is no text, or a value of the body cannot be written as JSON.
            ValueError: An id is one that could change the path.
        """
        quoted = tuple([check_id(name, ids[name]) for name in self.ids])
        return RequestSpec(
            operation=self.operation,
            method=self.method,
            path=self.pattern % quoted,
            query=encode_query(query) if query else "",
            body=None if body is None else encode_body(body),
            decode=self.decode,
            retry=self.retry,
            deleted_body=self._deleted_body(ids) if self.deletes else b"",
            thread_id=ids.get("thread_id"),
            run_id=ids.get("run_id"),
        )

    def _deleted_body(self, ids: Mapping[str, str]) -> bytes:
        return encode_body({"id": ids[self.ids[-1]], "object": self.deletes, "deleted": True})


def _without_marker(answer: Any, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a `decode` that strips the create marker from its runs."""

    def decode_run(text: bytes) -> Any:
        return strip_marker(decode(text))

    def decode_runs(text: bytes) -> Any:
        page = decode(text)
        strip_markers(page.data)
        return page

    if answer is Run:
        return decode_run
    return decode_runs if answer == Page[Run] else decode


def _get(operation: str, path: str, answer: type[T], query: tuple[str, ...] = ()) -> Endpoint[T]:
    return Endpoint(operation=operation, method="GET", path=path, answer=answer, query=query)


def _post(
    operation: str,
    path: str,
    body: type[Request] | None,
    answer: type[T],
    *,
    query: tuple[str, ...] = (),
) -> Endpoint[T]:
    return Endpoint(
        operation=operation,
        method="POST",
        path=path,
        body=body,
        answer=answer,
        query=query,
        retry=Retry.NOT_IDEMPOTENT,
    )


def _delete(operation: str, path: str, deletes: str) -> Endpoint[Deleted]:
    return Endpoint(
        operation=operation, method="DELETE", path=path, answer=Deleted, deletes=deletes
    )


_ASSISTANT: Final = "/assistants/{assistant_id}"
_THREAD: Final = "/threads/{thread_id}"
_MESSAGES: Final = f"{_THREAD}/messages"
_MESSAGE: Final = f"{_MESSAGES}/{{message_id}}"
_RUNS: Final = f"{_THREAD}/runs"
_RUN: Final = f"{_RUNS}/{{run_id}}"
_STEPS: Final = f"{_RUN}/steps"

LIST_ASSISTANTS = _get("listAssistants", "/assistants", Page[Assistant], _CURSOR)
CREATE_ASSISTANT = _post("createAssistant", "/assistants", CreateAssistant, Assistant)
GET_ASSISTANT = _get("getAssistant", _ASSISTANT, Assistant)
UPDATE_ASSISTANT = _post("modifyAssistant", _ASSISTANT, UpdateAssistant, Assistant)
DELETE_ASSISTANT = _delete("deleteAssistant", _ASSISTANT, "assistant.deleted")
CREATE_THREAD = _post("createThread", "/threads", CreateThread, Thread)
CREATE_THREAD_AND_RUN = _post("createThreadAndRun", "/threads/runs", CreateThreadAndRun, Run)
GET_THREAD = _get("getThread", _THREAD, Thread)
UPDATE_THREAD = _post("modifyThread", _THREAD, UpdateThread, Thread)
DELETE_THREAD = _delete("deleteThread", _THREAD, "thread.deleted")
LIST_MESSAGES = _get("listMessages", _MESSAGES, Page[Message], (*_CURSOR, "run_id"))
CREATE_MESSAGE = _post("createMessage", _MESSAGES, CreateMessage, Message)
GET_MESSAGE = _get("getMessage", _MESSAGE, Message)
UPDATE_MESSAGE = _post("modifyMessage", _MESSAGE, UpdateMessage, Message)
DELETE_MESSAGE = _delete("deleteMessage", _MESSAGE, "thread.message.deleted")
LIST_RUNS = _get("listRuns", _RUNS, Page[Run], _CURSOR)
CREATE_RUN = _post("createRun", _RUNS, CreateRun, Run, query=("include",))
GET_RUN = _get("getRun", _RUN, Run)
UPDATE_RUN = _post("modifyRun", _RUN, UpdateRun, Run)
CANCEL_RUN = _post("cancelRun", f"{_RUN}/cancel", None, Run)
SUBMIT_TOOL_OUTPUTS = _post(
    "submitToolOuputsToRun", f"{_RUN}/submit_tool_outputs", SubmitToolOutputs, Run
)
LIST_RUN_STEPS = _get("listRunSteps", _STEPS, Page[RunStep], (*_CURSOR, "include"))
GET_RUN_STEP = _get("getRunStep", f"{_STEPS}/{{step_id}}", RunStep, ("include",))

ENDPOINTS: Final[tuple[Endpoint[Any], ...]] = tuple(
    row for row in list(globals().values()) if isinstance(row, Endpoint)
)
"""All 23 operations, in the order above: `/threads/runs` stands before `/threads/{thread_id}`."""

STREAM_RUN = _get("streamRun", f"{_RUN}/stream", Run)
"""Not OpenAI's: the events of a run, from after `Last-Event-ID` on, on servers that resume."""
LIST_THREADS = _get("listThreads", "/threads", Page[Thread], _CURSOR)
"""Not OpenAI's, but Azure AI Foundry's: all threads."""
LIST_ALL_RUNS = _get("listAllRuns", "/runs", Page[Run], _CURSOR)
"""Not OpenAI's: the runs of all threads."""

EXTENSIONS: Final[tuple[Endpoint[Any], ...]] = (STREAM_RUN, LIST_THREADS, LIST_ALL_RUNS)
"""What our server has besides; `POST /import` is no row, as its body is a stream of lines."""
