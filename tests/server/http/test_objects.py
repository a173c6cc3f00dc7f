"""Assistants, threads and messages: what is sent is what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from tests.server.support import FUNCTION, Caller, run_path

pytestmark = pytest.mark.postgresql


async def test_assistant_keeps_what_it_was_made_of(caller: Caller) -> None:
    """All fields come back, on create, on get and in the list."""
    fields = {
        "model": "test",
        "name": "N",
        "description": "D",
        "instructions": "I",
        "tools": [FUNCTION, {"type": "code_interpreter"}],
        "tool_resources": {"code_interpreter": {"file_ids": ["file_1"]}},
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 0.25,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
    }

    made = await caller.post("/assistants", fields)

    assert {name: made[name] for name in fields} == fields
    assert await caller.get(f"/assistants/{made['id']}") == made
    assert (await caller.get("/assistants"))["data"] == [made]


async def test_assistant_has_defaults_when_only_a_model_is_sent(caller: Caller) -> None:
    """The defaults of the API, and null for what there is none for."""
    made = await caller.post("/assistants", {"model": "test", "temperature": None})

    assert (made["temperature"], made["top_p"], made["response_format"]) == (1.0, 1.0, "auto")
    assert (made["tools"], made["metadata"], made["name"]) == ([], {}, None)
    assert len(made["id"]) == len("asst_") + 24


async def test_update_changes_only_what_was_sent(caller: Caller) -> None:
    """A field left out stays, and null sets it back."""
    made = await caller.post("/assistants", {"model": "test", "name": "N", "metadata": {"a": "b"}})

    changed = await caller.post(
        f"/assistants/{made['id']}", {"name": None, "instructions": "I", "metadata": None}
    )

    assert changed == {**made, "name": None, "instructions": "I", "metadata": {}}
    assert await caller.post(f"/assistants/{made['id']}", {}) == changed


async def test_deleted_assistant_leaves_its_runs_readable(caller: Caller) -> None:
    """What it did stays; what it could do is over."""
    run = await caller.settled(await caller.start())

    gone = await caller.send("DELETE", f"/assistants/{run['assistant_id']}")

    assert gone.json == {"id": run["assistant_id"], "object": "assistant.deleted", "deleted": True}
    assert await caller.get(run_path(run)) == run
    again = await caller.send("DELETE", f"/assistants/{run['assistant_id']}")
    assert again.status == 404


async def test_delete_takes_an_empty_body_that_calls_itself_json(caller: Caller) -> None:
    """Official clients send the header on every request."""
    thread_id = await caller.thread()

    reply = await caller.send(
        "DELETE", f"/threads/{thread_id}", headers={"content-type": "application/json"}
    )

    assert reply.json == {"id": thread_id, "object": "thread.deleted", "deleted": True}


async def test_thread_takes_messages_metadata_and_resources(caller: Caller) -> None:
    """A thread is made whole in one call, and changed field by field."""
    resources = {"file_search": {"vector_store_ids": ["vs_1"]}}
    thread = await caller.post(
        "/threads",
        {
            "messages": [
                {"role": "user", "content": "one", "metadata": {"n": "1"}},
                {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
            ],
            "metadata": {"a": "b"},
            "tool_resources": resources,
        },
    )

    listed = await caller.get(f"/threads/{thread['id']}/messages?order=asc")
    changed = await caller.post(f"/threads/{thread['id']}", {"metadata": {"c": "d"}})

    assert thread["tool_resources"] == resources
    assert [m["content"][0]["text"]["value"] for m in listed["data"]] == ["one", "two"]
    assert [m["role"] for m in listed["data"]] == ["user", "assistant"]
    assert listed["data"][0]["metadata"] == {"n": "1"}
    assert changed == {**thread, "metadata": {"c": "d"}}


async def test_vector_stores_cannot_be_made_with_a_thread(caller: Caller) -> None:
    """What nothing here could do is refused."""
    store: dict[str, list[str]] = {"file_ids": []}
    resources = {"file_search": {"vector_stores": [store]}}

    reply = await caller.send("POST", "/threads", json={"tool_resources": resources})

    assert reply.json["error"]["param"] == "tool_resources.file_search.vector_stores"
    assert "vector_store_ids" in reply.json["error"]["message"]


async def test_no_vector_stores_to_be_made_are_none(caller: Caller) -> None:
    """An empty list asks for nothing."""
    resources = {"file_search": {"vector_store_ids": ["vs_1"], "vector_stores": []}}

    thread = await caller.post("/threads", {"tool_resources": resources})

    assert thread["tool_resources"]["file_search"] == {"vector_store_ids": ["vs_1"]}


async def test_message_keeps_parts_and_attachments(caller: Caller) -> None:
    """Each kind of content comes back in its answered form."""
    thread_id = await caller.thread()
    attachment = {"file_id": "file_1", "tools": [{"type": "code_interpreter"}]}

    message = await caller.post(
        f"/threads/{thread_id}/messages",
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "image_file", "image_file": {"file_id": "file_2", "detail": "low"}},
            ],
            "attachments": [attachment],
        },
    )

    assert message["content"] == [
        {"type": "text", "text": {"value": "Look", "annotations": []}},
        {
            "type": "image_url",
            "image_url": {"url": "https://example.org/a.png", "detail": "auto"},
        },
        {"type": "image_file", "image_file": {"file_id": "file_2", "detail": "low"}},
    ]
    assert message["attachments"] == [attachment]
    assert (message["status"], message["run_id"], message["assistant_id"]) == (
        "completed",
        None,
        None,
    )


async def test_message_metadata_can_be_changed_and_the_message_deleted(caller: Caller) -> None:
    """Nothing else of a message changes; once deleted it is not found."""
    thread_id = await caller.thread("Hello")
    message = (await caller.get(f"/threads/{thread_id}/messages"))["data"][0]
    path = f"/threads/{thread_id}/messages/{message['id']}"

    changed = await caller.post(path, {"metadata": {"k": "v"}})
    gone = await caller.send("DELETE", path)

    assert changed == {**message, "metadata": {"k": "v"}}
    assert gone.json == {"id": message["id"], "object": "thread.message.deleted", "deleted": True}
    assert (await caller.send("GET", path)).status == 404


async def test_line_breaks_in_metadata_are_inert(caller: Caller) -> None:
    """What could forge a header or a log line is only text in JSON."""
    evil = "x\r\nset-cookie: a=b\x00"

    thread = await caller.post("/threads", {"metadata": {"k": evil}})
    reply = await caller.send("GET", f"/threads/{thread['id']}")

    assert reply.json["metadata"] == {"k": evil}
    assert "set-cookie" not in reply.headers


ODD = {
    "U+0000": "a%00b",
    "no UTF-8": "%ff",
    "half a surrogate": "%ed%a0%80",
    "emoji": "%f0%9f%98%80",
    "very long": "x" * 5000,
    "quotes": "%27%22--",
    "place of a parameter": "%25s%25(key)s:key",
    "pattern": "%25_",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_odd_id_is_that_of_nothing(caller: Caller, odd: str) -> None:
    """Whatever stands in its place: it is the request that is wrong, not the server."""
    thread = await caller.thread("Hello")
    url = f"{caller.url}/threads/{thread}/messages"
    message = {"role": "user", "content": "x"}
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"{caller.url}/threads/{odd}", None),
        ("DELETE", f"{caller.url}/threads/{odd}", None),
        ("POST", f"{caller.url}/threads/{odd}/messages", message),
        ("GET", f"{url}/{odd}", None),
        ("GET", f"{url}?after={odd}", None),
    ]

    statuses = set()
    for method, address, body in asked:
        sent = caller.session.request(method, URL(address, encoded=True), json=body)
        async with sent as response:
            statuses.add(response.status)

    assert statuses <= {400, 404}
    assert (await caller.messages({"thread_id": thread}))[0]["role"] == "user"
