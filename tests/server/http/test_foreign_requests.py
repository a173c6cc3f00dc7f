"""What other clients send: nothing is wiped by what was not set, what is refused is explained."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest

from openai_runs.server.http import foreign_requests
from tests.server.support import Caller

EMPTY: dict[str, Any] = {
    "object": {},
    "null": None,
    "objects": {"code_interpreter": {}, "file_search": {}},
    "lists": {"code_interpreter": {"file_ids": []}, "file_search": {"vector_store_ids": []}},
    "nulls": {"code_interpreter": None, "file_search": {"vector_store_ids": None}},
}


@pytest.mark.parametrize("resources", EMPTY.values(), ids=EMPTY)
async def test_resources_of_a_run_that_name_nothing_are_ignored(
    caller: Caller, resources: Any
) -> None:
    """azure-ai-agents sends them with every run."""
    thread_id = await caller.thread("Hello!")
    body = {"assistant_id": await caller.assistant(), "tool_resources": resources}

    run = await caller.settled(await caller.post(f"/threads/{thread_id}/runs", body))

    assert (run["status"], run["tools"]) == ("completed", [])


async def test_resources_of_a_run_that_name_something_are_refused(caller: Caller) -> None:
    """They would be left out in silence; the refusal says where they belong."""
    resources = {"code_interpreter": {"file_ids": ["file_1"]}}
    body = {"assistant_id": await caller.assistant(), "tool_resources": resources}

    reply = await caller.send("POST", f"/threads/{await caller.thread()}/runs", json=body)

    assert (reply.status, reply.json["error"]["param"]) == (400, "tool_resources")
    assert "on the assistant or on the thread" in reply.message


async def test_resources_that_are_very_deep_are_refused(caller: Caller) -> None:
    """However deep a client nests nothing, the answer is a refusal."""
    deep = b'{"a": ' * 700 + b"{}" + b"}" * 700
    text = b'{"assistant_id": "a", "tool_resources": ' + deep + b"}"

    reply = await caller.send("POST", "/threads/t/runs", data=text)

    assert reply.status == 400
    assert "nested too deeply" in reply.message


async def test_mistake_beside_empty_resources_is_still_named(caller: Caller) -> None:
    """What is dropped hides nothing else."""
    body = {"assistant_id": "asst_x", "tool_resources": {}, "temperature": 3}

    reply = await caller.send("POST", "/threads/t/runs", json=body)

    assert (reply.status, reply.json["error"]["param"]) == (400, "temperature")


async def test_empty_model_changes_nothing(caller: Caller) -> None:
    """go-openai sends `"model": ""` whenever none was set: on an update, and on both runs."""
    assistant_id = await caller.assistant(model="first")
    thread_id = await caller.thread()
    body = {"assistant_id": assistant_id, "model": ""}

    changed = await caller.post(f"/assistants/{assistant_id}", {"model": "", "name": "N"})
    run = await caller.post(f"/threads/{thread_id}/runs", body)
    other = await caller.post("/threads/runs", body)

    assert (changed["model"], changed["name"]) == ("first", "N")
    assert (run["model"], other["model"]) == ("first", "first")


async def test_assistant_without_a_model_is_refused(caller: Caller) -> None:
    """An empty one counts as not sent."""
    reply = await caller.send("POST", "/assistants", json={"model": ""})

    assert (reply.status, reply.json["error"]["param"]) == (400, "model")
    assert reply.message == "Missing required parameter: 'model'."


async def test_text_that_is_no_json_behind_empty_resources_is_a_400(caller: Caller) -> None:
    """The body is parsed a second time, and no worse than the first time."""
    for rest in (b"[" * 100_000, b"NaN", b'"\xe9"'):
        text = b'{"assistant_id": "a", "tool_resources": {}, "metadata": ' + rest

        reply = await caller.send("POST", "/threads/t/runs", data=text)

        assert reply.status == 400
        assert "could not parse the JSON body" in reply.message


MESSAGE = {"role": "user", "content": "x"}
OLD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "assistant": (
        "/assistants",
        {"model": "m", "name": "Reader", "tools": [{"type": "retrieval"}], "file_ids": ["file-1"]},
        "tools[0].type",
        '{"type": "file_search"}',
    ),
    "assistant-files": (
        "/assistants",
        {"model": "m", "file_ids": ["file-1"]},
        "file_ids",
        "`tool_resources`",
    ),
    "update": ("/assistants/a", {"file_ids": []}, "file_ids", "`tool_resources`"),
    "run-tools": (
        "/threads/t/runs",
        {"assistant_id": "a", "tools": [{"type": "code_interpreter"}, {"type": "retrieval"}]},
        "tools[1].type",
        '{"type": "file_search"}',
    ),
    "tool-choice": (
        "/threads/runs",
        {"assistant_id": "a", "tool_choice": {"type": "retrieval"}},
        "tool_choice.type",
        '{"type": "file_search"}',
    ),
    "message": (
        "/threads/t/messages",
        {**MESSAGE, "file_ids": ["file-1"]},
        "file_ids",
        "`attachments`",
    ),
    "message-of-a-thread": (
        "/threads",
        {"messages": [MESSAGE, {**MESSAGE, "file_ids": []}]},
        "messages[1].file_ids",
        "`attachments`",
    ),
    "message-of-a-run": (
        "/threads/t/runs",
        {"assistant_id": "a", "additional_messages": [{**MESSAGE, "file_ids": []}]},
        "additional_messages[0].file_ids",
        "`attachments`",
    ),
    "system": (
        "/threads/t/messages",
        {"role": "system", "content": "Be brief."},
        "role",
        "`instructions`",
    ),
    "developer": (
        "/threads/runs",
        {"assistant_id": "a", "thread": {"messages": [{"role": "developer", "content": "x"}]}},
        "thread.messages[0].role",
        "`instructions`",
    ),
    "tool": (
        "/threads/t/messages",
        {"role": "tool", "content": "12 degrees"},
        "role",
        "submit_tool_outputs",
    ),
}


@pytest.mark.parametrize(("path", "body", "param", "now"), OLD.values(), ids=OLD)
async def test_body_of_version_1_is_refused_with_what_to_write_now(
    caller: Caller, path: str, body: Any, param: str, now: str
) -> None:
    """The text names the field, the version of this server, and what takes the field's place."""
    reply = await caller.send("POST", path, data=json.dumps(body))

    assert (reply.status, reply.json["error"]["param"]) == (400, param)
    assert "This server has version 2 of the Assistants API" in reply.message
    assert now in reply.message


async def test_other_unknown_field_has_no_word_on_versions(caller: Caller) -> None:
    """Only what version 1 had is explained by it."""
    reply = await caller.send("POST", "/assistants", json={"model": "m", "files": []})

    assert reply.message == "Unknown parameter: 'files'."


NOW = ('write `{"type": "file_search"}`', "write `attachments`", "write `tool_resources`")
HEADERS: dict[str, tuple[str, int]] = {
    "v1": ("assistants=v1", 400),
    "spaces": (" assistants = V1 ", 400),
    "among-others": ("realtime=v1, assistants=v1", 400),
    "later": ("assistants=v3", 400),
    "v2": ("assistants=v2", 200),
    "both": ("assistants=v1,assistants=v2", 200),
    "others": ("realtime=v1", 200),
    "nonsense": ("assistants", 200),
}


@pytest.mark.parametrize(("header", "status"), HEADERS.values(), ids=HEADERS)
async def test_other_version_in_the_header_is_refused_by_name(
    caller: Caller, header: str, status: int
) -> None:
    """`OpenAI-Beta` asks for a version; a list of others, or none, asks for nothing of ours."""
    reply = await caller.send("POST", "/threads", json={}, headers={"OpenAI-Beta": header})

    assert reply.status == status
    if status == 400:
        assert (reply.json["error"]["param"], reply.json["error"]["code"]) == (
            "OpenAI-Beta",
            "invalid_beta",
        )
        for words in ("has version 2", "`OpenAI-Beta: assistants=v2`", *NOW):
            assert words in reply.message


METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"]
NOT_OFFERED = {
    "/v1/files": "files",
    "/v1/files/file_1/content": "files",
    "/v1/uploads": "uploads",
    "/v1/vector_stores/vs_1/files": "vector stores",
    "/v1/embeddings": "embeddings",
    "/v1/chat/completions": "chat completions",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/responses/resp_1/input_items": "responses",
    "/v1/conversations": "conversations",
    "/v1/images/generations": "images",
    "/v1/audio/speech": "audio",
    "/v1/moderations": "moderations",
    "/v1/batches": "batches",
    "/v1/fine_tuning/jobs": "fine-tuning",
    "/v1/realtime/sessions": "realtime sessions",
    "/v1/assistants/asst_1/files": "files of assistants and messages",
    "/v1/threads/thread_1/messages/msg_1/files/file_1": "files of assistants and messages",
    "/v1/v1/chat/completions": "chat completions",
    "/chat/completions": "chat completions",
    "/openai/deployments/gpt-4o/chat/completions": "chat completions",
    "/openai/v1/responses": "responses",
    "/openai/files": "files",
    "/api/embeddings": "embeddings",
}


@pytest.mark.parametrize("path", NOT_OFFERED)
async def test_what_is_not_offered_is_named_whatever_the_method(caller: Caller, path: str) -> None:
    """It is no wrong URL: the text says what is missing, and what is here."""
    root = Caller(caller.session, caller.url.removesuffix("/v1"))

    for method in METHODS:
        reply = await root.send(method, path)

        assert (reply.status, reply.json["error"]["code"]) == (404, "not_offered")
        named = f"This server does not offer {NOT_OFFERED[path]} ({method} {path}). It has "
        assert reply.message.startswith(named)


MISPLACED = [
    "/threads",
    "/assistants/asst_1",
    "/models",
    "/openai/threads",
    "/openai/assistants/asst_1",
    "/openai/v1/threads/thread_1/runs",
    "/v1/v1/threads",
    "/api/threads/thread_1",
]


@pytest.mark.parametrize("path", MISPLACED)
async def test_operation_under_another_prefix_is_told_where_it_is(
    caller: Caller, path: str
) -> None:
    """A base URL without /v1, with Azure's prefix, or with /v1 twice."""
    root = Caller(caller.session, caller.url.removesuffix("/v1"))

    reply = await root.send("GET", path)

    assert (reply.status, reply.json["error"]["code"]) == (404, "unknown_url")
    said = (
        "the operations are under /v1, so end" if "/v1" in path else "is the path /v1 missing? End"
    )
    assert reply.message == f"Invalid URL (GET {path}): {said} the base URL in /v1."


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/nope", "/v1/threads/t/files", "/filesystem", "/v1/chats"]
)
async def test_other_path_is_an_invalid_url(caller: Caller, path: str) -> None:
    """Nothing is said of what nobody knows."""
    root = Caller(caller.session, caller.url.removesuffix("/v1"))

    reply = await root.send("GET", path)

    assert (reply.status, reply.message) == (404, f"Invalid URL (GET {path})")


def test_examples_in_docstrings_hold() -> None:
    """What a docstring shows is what happens."""
    found = doctest.testmod(foreign_requests)

    assert (found.attempted > 0, found.failed) == (True, 0)
