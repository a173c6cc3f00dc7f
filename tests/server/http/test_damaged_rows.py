"""A row that is damaged is an error answer which names the request, and no word of the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.canaries import CANARY_PROMPT, Watch
from tests.databases import Database, Db, execute, texts_only
from tests.server.conftest import Serve
from tests.server.support import Caller, Reply, run_path

DAMAGE: dict[str, str | bytes | None | float] = {
    "not-utf-8": b"\xff" + CANARY_PROMPT.encode(),
    "not-utf-8-behind": CANARY_PROMPT.encode() + b"\xc3",
    "no-json": CANARY_PROMPT,
    "cut-off": f'{{"id": "{CANARY_PROMPT}',
    "other-type": f'{{"id": "x", "created_at": "{CANARY_PROMPT}"}}',
    "other-value": f'{{"id": "x", "object": "{CANARY_PROMPT}", "status": "{CANARY_PROMPT}"}}',
    "other-key": f'{{"{CANARY_PROMPT}": 1}}',
    "array": f'["{CANARY_PROMPT}"]',
    "blob-behind-a-nul": b"\0" + CANARY_PROMPT.encode(),
    "empty": "",
    "number": 7.5,
}
"""What SQLite keeps in a column of text; PostgreSQL keeps texts only."""


def damage(db: Db, value: Any) -> None:
    """Put the value in place of every body."""
    for table in ("assistants", "threads", "messages", "runs", "steps"):
        as_text = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
        execute(db, f"UPDATE {table} SET body = {as_text}", value)


async def ask_all(caller: Caller, run: Any) -> list[Reply]:
    """Return the answers to requests that read each kind of row."""
    thread = f"/threads/{run['thread_id']}"
    gets = ["/assistants", f"/assistants/{run['assistant_id']}", thread, f"{thread}/messages"]
    gets += [f"{thread}/runs", run_path(run), f"{run_path(run)}/steps", f"{run_path(run)}/stream"]
    posts = [thread, run_path(run), f"{run_path(run)}/cancel", f"/assistants/{run['assistant_id']}"]
    replies = [await caller.send("GET", path) for path in gets]
    replies += [await caller.send("POST", path, json={}) for path in posts]
    body = {"assistant_id": run["assistant_id"]}
    return [*replies, await caller.send("POST", f"{thread}/runs", json=body), await caller.ready()]


@pytest.mark.parametrize("value", [texts_only(each, each) for each in DAMAGE.values()], ids=DAMAGE)
async def test_damaged_row_is_quoted_nowhere(
    serve: Serve, tmp_path: Path, database: Database, value: Any, canaries: Watch
) -> None:
    """Neither in an answer nor in the log, and the server goes on."""
    caller = await serve()
    run = await caller.settled(await caller.start("Hello"))
    damage(database(tmp_path / "runs.db"), value)

    replies = await ask_all(caller, run)

    for reply in replies:
        if reply.status >= 400:  # a body that is of its type is read: nothing tells it from ours
            canaries.search("the answer", reply.text)
            assert reply.json.keys() <= {"error", "status", "reason"}
    assert (await caller.health()).status == 200
    await caller.post("/threads", {})
