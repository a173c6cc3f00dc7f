"""`write_responses`: a conversation as input items of the API's successor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient
from openai_runs.archive import export, write_responses
from openai_runs.archive.folders import RunLines, ThreadLines
from openai_runs.archive.responses import input_items
from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer, ScriptedBackend
from tests.archive.world import Foundry, populate, project, script


def message(key: str, role: str, *content: Any, **fields: Any) -> bytes:
    """Return a message; a text stands for a part of text."""
    parts = [
        {"type": "text", "text": {"value": part, "annotations": []}}
        if isinstance(part, str)
        else part
        for part in content
    ]
    return json.dumps({"id": key, "role": role, "content": parts, **fields}).encode()


def calls(*each: Any) -> bytes:
    """Return a step of tool calls."""
    details = {"type": "tool_calls", "tool_calls": list(each)}
    return json.dumps({"type": "tool_calls", "step_details": details}).encode()


def function(key: str, output: str | None = "4") -> dict[str, Any]:
    """Return a call of a function."""
    about = {"name": "add", "arguments": "{}", "output": output}
    return {"id": key, "type": "function", "function": about}


def wrote(key: str) -> bytes:
    """Return the step that wrote this message."""
    details = {"type": "message_creation", "message_creation": {"message_id": key}}
    return json.dumps({"type": "message_creation", "step_details": details}).encode()


def run(created_at: int, *steps: bytes) -> RunLines:
    """Return a run with these steps."""
    return RunLines(json.dumps({"id": "run", "created_at": created_at}).encode(), list(steps))


def shown(messages: list[bytes], *runs: RunLines) -> tuple[list[str], list[str]]:
    """Return the items in short, and what was left out."""
    thread = ThreadLines(thread=b'{"id":"thread_1"}', messages=messages, runs=list(runs))
    items, left = input_items(thread)
    short = [
        f"{item['role']}: {item['content'][0].get('text')}"
        if item["type"] == "message"
        else f"{item['type']} {item['call_id']}"
        for item in items
    ]
    return short, [f"{one.what} {one.id}" for one in left]


def test_calls_stand_before_the_message_that_was_written_from_them() -> None:
    """Two runs on a thread, each with its own; a call and its output together."""
    items, left = shown(
        [
            message("m1", "user", "One?"),
            message("m2", "assistant", "1"),
            message("m3", "user", "Two?"),
            message("m4", "assistant", "2"),
        ],
        run(1, calls(function("c1"), function("c2")), wrote("m2")),
        run(2, calls(function("c3")), wrote("m4")),
    )

    assert items == [
        "user: One?",
        "function_call c1",
        "function_call_output c1",
        "function_call c2",
        "function_call_output c2",
        "assistant: 1",
        "user: Two?",
        "function_call c3",
        "function_call_output c3",
        "assistant: 2",
    ]
    assert left == []


def test_calls_of_a_run_that_wrote_nothing_stand_before_the_next_question() -> None:
    """A run that failed after its calls; at the end of the thread they are the last."""
    items, _ = shown(
        [message("m1", "user", "One?", created_at=1), message("m2", "user", "Two?", created_at=9)],
        run(2, calls(function("c1"))),
        run(9, calls(function("c2"))),
    )

    assert [item for item in items if "output" not in item] == [
        "user: One?",
        "function_call c1",
        "user: Two?",
        "function_call c2",
    ]


def test_what_has_no_place_is_left_out_and_named() -> None:
    """Calls without output or of other tools, parts that nobody knows, attachments, citations."""
    cited = {"type": "text", "text": {"value": "x", "annotations": [{"type": "file_citation"}]}}
    items, left = shown(
        [
            message("m1", "user", "One?", {"type": "audio", "audio": {}}, attachments=[{"a": 1}]),
            message("m2", "assistant", cited, {"type": "image_file", "image_file": {}}),
            message("m3", "user"),
        ],
        run(1, calls(function("c1", None), {"id": "c2", "type": "file_search"}), wrote("m2")),
    )

    assert items == ["user: One?", "assistant: x"]
    assert left == [
        "audio part m1",
        "attachments m1",
        "function call c1",
        "file_search call c2",
        "annotations m2",
        "image_file part m2",
    ]


def test_parts_have_the_names_of_the_new_form() -> None:
    """Text by who wrote it, images by where they are, refusals."""
    thread = ThreadLines(
        thread=b'{"id":"thread_1"}',
        messages=[
            message(
                "m1",
                "user",
                "See",
                {"type": "image_url", "image_url": {"url": "https://e.invalid/a.png"}},
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "low"}},
            ),
            message("m2", "assistant", "Yes", {"type": "refusal", "refusal": "No."}),
        ],
        runs=[],
    )

    items, left = input_items(thread)

    assert left == []
    assert items == [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": "https://e.invalid/a.png", "detail": "auto"},
                {"type": "input_image", "file_id": "file-1", "detail": "low"},
            ],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "Yes", "annotations": []},
                {"type": "refusal", "refusal": "No."},
            ],
        },
    ]


async def test_every_thread_has_a_file_of_items(tmp_path: Path) -> None:
    """Of an archive of ours: each message and each answered call is there."""
    server = LocalServer(backend=ScriptedBackend(script))
    async with server, AsyncClient(server.url) as client:
        await populate(client, 10)
        report = await export(client, tmp_path)

    made = await write_responses(tmp_path)
    again = await write_responses(tmp_path)

    items = [
        json.loads(line)
        for path in (tmp_path / "responses").glob("thread_*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    kinds = [item["type"] for item in items]
    assert made == again
    assert (made.threads, made.items, made.left_out) == (10, len(items), [])
    assert kinds.count("message") == report.counts["messages"]
    assert kinds.count("function_call") == kinds.count("function_call_output") > 0


async def test_foreign_tools_are_named(tmp_path: Path) -> None:
    """A Foundry's own tools have no place in the form."""
    fake = Foundry(threads=1)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)

    made = await write_responses(tmp_path)

    whats = {one.what for one in made.left_out}
    assert whats >= {"openapi call", "azure_ai_search call", "mcp call", "audio part"}
    lines = (tmp_path / "responses" / "left-out.jsonl").read_bytes().splitlines()
    assert len(lines) == len(made.left_out)


@pytest.mark.parametrize("damage", ["manifest", "thread"])
async def test_archive_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    """Nothing is made of half an archive."""
    fake = Foundry(threads=1)
    async with project(fake, fake.token) as client:
        await export(client, tmp_path)
    if damage == "manifest":
        (tmp_path / "manifest.json").unlink()
    else:
        (tmp_path / "threads" / "thread_f0.jsonl").write_text("{}")

    with pytest.raises(ConfigError):
        await write_responses(tmp_path)
