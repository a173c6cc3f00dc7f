"""`Idempotency-Key`: once is enough, and once is all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs.server import Call, CallTools, Hang
from tests.databases import Database
from tests.server.conftest import Serve
from tests.server.support import Caller, ManualClock, run_path

pytestmark = pytest.mark.postgresql

KEY = {"Idempotency-Key": "key-1"}


async def test_twenty_creates_with_one_key_make_one_run(serve: Serve) -> None:
    """All get the same answer; all but one are told that it is a replay."""
    caller = await serve(Hang())
    assistant_id, thread_id = await caller.assistant(), await caller.thread()
    replies: list[Any] = []

    async def create() -> None:
        path, body = f"/threads/{thread_id}/runs", {"assistant_id": assistant_id}
        replies.append(await caller.send("POST", path, json=body, headers=KEY))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(create)

    replayed = [reply for reply in replies if "idempotent-replayed" in reply.headers]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.text for reply in replies}) == 1
    assert len(replayed) == 19
    assert {reply.headers["idempotent-replayed"] for reply in replayed} == {"true"}
    assert len((await caller.get(f"/threads/{thread_id}/runs"))["data"]) == 1


async def test_key_with_another_body_or_route_is_a_409(caller: Caller) -> None:
    """A key that means two things is a mistake of the sender; the first answer stays."""
    first = await caller.send("POST", "/threads", json={"metadata": {"a": "1"}}, headers=KEY)

    other_body = await caller.send("POST", "/threads", json={"metadata": {"a": "2"}}, headers=KEY)
    other_route = await caller.send("POST", "/assistants", json={"model": "m"}, headers=KEY)
    again = await caller.send("POST", "/threads", json={"metadata": {"a": "1"}}, headers=KEY)

    assert (other_body.status, other_route.status) == (409, 409)
    assert other_body.json["error"]["code"] == "idempotency_key_reused"
    assert again.text == first.text


async def test_same_body_in_another_order_is_the_same_request(caller: Caller) -> None:
    """JSON objects have no order."""
    first = await caller.send(
        "POST", "/threads", data='{"metadata": {"a": "1", "b": "2"}, "messages": []}', headers=KEY
    )

    again = await caller.send(
        "POST", "/threads", data='{"messages":[],"metadata":{"b":"2","a":"1"}}', headers=KEY
    )

    assert again.text == first.text


@pytest.mark.parametrize("path", ["cancel", "submit_tool_outputs", "", "messages"])
async def test_every_post_is_replayed(serve: Serve, path: str) -> None:
    """Cancel, submit, modify and create message: the second time nothing is done."""
    caller = await serve(CallTools([Call("weather", id="call_1")]), "Done.")
    waiting = await caller.settled(await caller.start())
    outputs = {"tool_outputs": [{"tool_call_id": "call_1", "output": "x"}]}
    bodies: dict[str, Any] = {
        "cancel": None,
        "submit_tool_outputs": outputs,
        "": {"metadata": {"a": "b"}},
    }
    url = f"{run_path(waiting)}/{path}".rstrip("/")
    if path == "messages":  # refused, as the run waits: a refusal is an answer too
        url = f"/threads/{waiting['thread_id']}/messages"
        bodies[path] = {"role": "user", "content": "x"}

    first = await caller.send("POST", url, json=bodies[path], headers=KEY)
    again = await caller.send("POST", url, json=bodies[path], headers=KEY)

    assert first.status == (400 if path == "messages" else 200)
    assert (again.status, again.text) == (first.status, first.text)
    assert again.headers["idempotent-replayed"] == "true"


async def test_refusal_before_the_operation_is_not_kept(caller: Caller) -> None:
    """A body that could not be read used no key up."""
    refused = await caller.send("POST", "/threads", json={"nope": 1}, headers=KEY)

    made = await caller.send("POST", "/threads", json={}, headers=KEY)

    assert (refused.status, made.status) == (400, 200)
    assert "idempotent-replayed" not in made.headers


@pytest.mark.parametrize("key", ["k" * 256, "k\xe9y"], ids=["long", "not-ascii"])
async def test_bad_key_is_refused(caller: Caller, key: str) -> None:
    """At most 255 characters, all of them printable."""
    reply = await caller.send("POST", "/threads", json={}, headers={"Idempotency-Key": key})

    assert (reply.status, reply.json["error"]["param"]) == (400, "Idempotency-Key")


async def test_longest_key_is_taken(caller: Caller) -> None:
    """255 characters."""
    reply = await caller.send("POST", "/threads", json={}, headers={"Idempotency-Key": "k" * 255})

    assert reply.status == 200


async def test_body_that_is_not_read_may_be_anything(caller: Caller) -> None:
    """Cancel has no body; what comes all the same is no fault of the server."""
    run = await caller.settled(await caller.start())

    reply = await caller.send("POST", f"{run_path(run)}/cancel", data=b"{nope", headers=KEY)

    assert (reply.status, reply.message) == (400, "Cannot cancel run with status 'completed'.")


async def test_key_on_a_get_means_nothing(caller: Caller) -> None:
    """Reading is repeatable anyway."""
    first = await caller.send("GET", "/assistants", headers=KEY)
    await caller.assistant()
    second = await caller.send("GET", "/assistants", headers=KEY)

    assert (len(first.json["data"]), len(second.json["data"])) == (0, 1)


async def test_key_is_forgotten_after_a_day(serve: Serve) -> None:
    """The second request is then a new one."""
    clock = ManualClock()
    caller = await serve(clock=clock)
    first = await caller.send("POST", "/threads", json={}, headers=KEY)

    clock.advance(24 * 3600)
    same = await caller.send("POST", "/threads", json={}, headers=KEY)
    clock.advance(1)
    other = await caller.send("POST", "/threads", json={}, headers=KEY)

    assert same.text == first.text
    assert other.json["id"] != first.json["id"]


async def test_key_is_remembered_when_the_server_was_restarted(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """The answer is in the file, with what it answered."""
    import aiohttp

    from openai_runs.server import LocalServer

    async with (
        LocalServer(database(tmp_path / "k.db")) as server,
        aiohttp.ClientSession() as session,
    ):
        first = await Caller(session, server.url).send("POST", "/threads", json={}, headers=KEY)
    again = await (await serve(db=database(tmp_path / "k.db"))).send(
        "POST", "/threads", json={}, headers=KEY
    )

    assert again.text == first.text
    assert again.headers["idempotent-replayed"] == "true"
