"""A value that cannot be read costs only itself: the other items and the page survive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs import AsyncClient
from tests.client.broadcaster import message_json, step_json
from tests.support import Answer, HostileServer, run_json

VALUES = {
    "first half": "two \\ud83d",
    "second half": "two \\ude00",
    "raw line break": "two \n",
    "no UTF-8": "two \udcff",
}
ASSISTANT = {"id": "asst_1", "object": "assistant", "created_at": 1, "model": "m", "tools": []}


def page(items: list[dict[str, Any]], value: str) -> Answer:
    """Return a page in which `two` is that value."""
    text = json.dumps({"object": "list", "data": items, "has_more": False})
    body = text.replace('"two"', f'"{value}"').encode("utf-8", "surrogateescape")
    return Answer(body=body)


def numbered(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return three items of which the second is named in its metadata."""
    return [
        {**item, "id": f"{item['id']}{number}", "metadata": {"name": word}}
        for number, word in enumerate(("one", "two", "three"))
    ]


LISTS = {
    "messages": (message_json("Hi", "completed"), lambda c: c.messages.list("thread_1")),
    "runs": (run_json("completed"), lambda c: c.runs.list("thread_1")),
    "steps": (step_json("completed"), lambda c: c.runs.steps.list("run_1", thread_id="thread_1")),
    "assistants": (ASSISTANT, lambda c: c.assistants.list()),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize(("item", "listed"), LISTS.values(), ids=LISTS)
async def test_page_survives_a_value_that_cannot_be_read(
    item: dict[str, Any], listed: Any, value: str
) -> None:
    """All three items are there, of their own kind, and the page can be written as JSON."""
    answer = page(numbered(item), value)
    async with HostileServer(lambda _: answer) as server, AsyncClient(server.url, "k") as client:
        found = await listed(client)

    names = [one.metadata["name"] for one in found.data]
    assert (names[0], names[2]) == ("one", "three")
    assert names[1].startswith("two ")
    assert len({type(one) for one in found.data}) == 1
    assert found.to_json().encode()
    assert [dict(one)["metadata"]["name"] for one in found.data] == names
