"""A row that cannot be read: the log says which and why, and nobody is shown what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from openai_runs.server.store import rows, shared_json
from openai_runs.server.store.damage import DamagedRow
from openai_runs.types.messages import Message
from openai_runs.types.runs import Run
from tests.databases import Database, Db, execute, texts_only
from tests.server.conftest import Serve
from tests.server.support import run_path

SECRET = "the-patient-is-called-Smith"
TABLES = {
    "assistants": "/assistants/{assistant}",
    "threads": "/threads/{thread}",
    "messages": "/threads/{thread}/messages/{message}",
    "runs": "/threads/{thread}/runs/{run}",
    "steps": "/threads/{thread}/runs/{run}/steps/{step}",
}
"""Table -> what reads a row of it."""
LISTS = {
    "assistants": "/assistants",
    "messages": "/threads/{thread}/messages",
    "runs": "/threads/{thread}/runs",
    "steps": "/threads/{thread}/runs/{run}/steps",
}
"""Table -> what reads a page of it."""
DAMAGES: dict[str, tuple[str | bytes, str]] = {
    "not-json": (SECRET, "it is not JSON"),
    "cut": (f'{{"id": "x", "object": "{SECRET}', "it is not JSON"),
    "other-object": (f'{{"nothing": "{SECRET}"}}', "not that of such an object"),
    "wrong-type": (f'{{"id": ["{SECRET}"]}}', "not that of such an object"),
    "not-utf-8": (f'{{"id": "{SECRET}'.encode() + b'\xff\xfe"}', "it is not UTF-8"),
    "bytes": (SECRET.encode(), "not a text|it is not JSON"),
    "deep": ("[" * 5000 + SECRET, "it is not JSON|not that of such|nested too deeply"),
}
"""What -> the body of each row, and what the log says of it."""


def damage(db: Db, table: str, body: str | bytes, name: str) -> None:
    """Write this into each row of the table."""
    value = f"CAST(X'{body.hex()}' AS TEXT)" if isinstance(body, bytes) else "?"
    if name == "bytes":
        value = "?"
    execute(db, f"UPDATE {table} SET body = {value}", *([body] if value == "?" else []))


@pytest.mark.parametrize("how", ["one", "list"])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "name", [texts_only(each, body) for each, (body, _) in DAMAGES.items()], ids=DAMAGES
)
async def test_damaged_row_is_named_and_never_quoted(
    *,
    table: str,
    name: str,
    how: str,
    serve: Serve,
    tmp_path: Path,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the table, the id and the kind of damage; the answer is an error without any."""
    caplog.set_level("DEBUG")
    caller = await serve()
    run = await caller.settled(await caller.start())
    (message, *_) = await caller.messages(run)
    steps = await caller.send("GET", f"{run_path(run)}/steps")
    ids = {
        "assistant": run["assistant_id"],
        "thread": run["thread_id"],
        "message": message["id"],
        "run": run["id"],
        "step": steps.json["data"][0]["id"],
    }
    body, words = DAMAGES[name]
    await anyio.to_thread.run_sync(damage, database(tmp_path / "runs.db"), table, body, name)

    path = (TABLES if how == "one" else LISTS).get(table, TABLES[table]).format(**ids)
    answer = await caller.send("GET", path)

    assert (answer.status, answer.json["error"]["type"]) == (500, "server_error"), answer.text
    assert SECRET not in answer.text + caplog.text + repr([r.__dict__ for r in caplog.records])
    (line,) = [r.getMessage() for r in caplog.records if "is damaged" in r.getMessage()]
    assert f"table '{table}'" in line
    assert any(word in line for word in words.split("|")), line
    assert any(each in line for each in (*ids.values(), "row msg_", "of no known id")), line


@pytest.mark.parametrize(
    "body",
    [SECRET, f'{{"id":"{SECRET}"', f'{{"id":1,"status":"{SECRET}"}}', "\ud800" + SECRET],
    ids=["text", "cut", "types", "surrogate"],
)
def test_error_of_a_damaged_row_holds_nothing_of_it(body: str) -> None:
    """Nor does an error that it came from: whoever prints the chain prints no content."""
    with pytest.raises(DamagedRow) as refused:
        rows.decode(Message, body, "msg_1")

    assert (refused.value.table, refused.value.row) == ("messages", "msg_1")
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_damage_of_a_row_that_is_sent_as_it_is_stored_is_found() -> None:
    """A row of another object, or of none, is not sent."""
    for body in (f'{{"id":"{SECRET}"}}', SECRET, "[]", "null"):
        with pytest.raises(DamagedRow, match="table 'runs', row run_1") as refused:
            rows.check(Run, body, "run_1")
        assert SECRET not in str(refused.value)


SHARED: dict[str, bytes] = {
    "names": f'{{"id":"run_1","_shared":{{"tools":"{SECRET}"}}}}'.encode(),
    "no-hashes": b'{"id":"run_1","x":"%s","_shared":{"tools":[7]}}' % SECRET.encode(),
    "not-utf-8": b'{"id":"run_1","_shared":{"tools":["\xff\xfe%s"]}}' % SECRET.encode(),
    "no-end": b'{"id":"run_1","x":"%s","_shared":{"instructions":["a"]}}' % SECRET.encode(),
}


@pytest.mark.parametrize("stored", SHARED.values(), ids=SHARED)
def test_run_that_names_what_it_shares_wrongly_is_damaged(stored: bytes) -> None:
    """The error names the run, and quotes nothing."""
    with pytest.raises(DamagedRow, match="table 'runs', row run_1") as refused:
        shared_json.join(stored, lambda name: msgspec.json.encode(SECRET))

    assert SECRET not in str(refused.value)
    assert refused.value.__context__ is None


SHARED_ROWS: dict[str, Any] = {
    "bytes": texts_only("X'00'", None),
    "text": f"'{SECRET}'",
    "number": texts_only("17", None),
}


@pytest.mark.parametrize("value", SHARED_ROWS.values(), ids=SHARED_ROWS)
async def test_shared_row_that_is_damaged_is_named_by_its_hash(
    value: str, serve: Serve, tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not sent, whatever it holds."""
    caller = await serve()
    assistant = await caller.assistant(instructions="Be kind. " * 500)
    body = {"assistant_id": assistant}
    run = await caller.settled(
        await caller.post(f"/threads/{await caller.thread('Go.')}/runs", body)
    )
    await caller.close()
    db = database(tmp_path / "runs.db")
    execute(db, f"UPDATE shared_json SET body = {value}")
    ((name,),) = execute(db, "SELECT hash FROM shared_json")

    answer = await (await serve()).send("GET", run_path(run))

    assert answer.status == 500
    assert SECRET not in answer.text + caplog.text
    assert f"table 'shared_json', row {name}" in caplog.text


async def test_shared_row_that_is_missing_is_named(
    serve: Serve, tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose text was deleted by hand is damaged, and not "not found"."""
    caller = await serve()
    body = {"assistant_id": await caller.assistant(instructions="Be kind. " * 500)}
    run = await caller.settled(
        await caller.post(f"/threads/{await caller.thread('Go.')}/runs", body)
    )
    await caller.close()
    db = database(tmp_path / "runs.db")
    ((name,),) = execute(db, "SELECT hash FROM shared_json")
    unchecked = "SET session_replication_role = replica;" if database.kind == "postgresql" else ""
    execute(db, f"{unchecked} DELETE FROM shared_json")

    answer = await (await serve()).send("GET", run_path(run))

    assert answer.status == 500
    assert f"table 'shared_json', row {name}: it is missing, and a run shares it" in caplog.text


@pytest.mark.sqlite("about the file")
async def test_page_that_is_damaged_is_a_503_in_the_words_of_sqlite(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is damaged while it is served: SQLite's words name no content."""
    caller = await serve()
    threads = [await caller.thread(f"{SECRET} " * 200) for _ in range(30)]
    await caller.close()
    db = tmp_path / "runs.db"
    caller = await serve()
    content = bytearray(db.read_bytes())
    for begin in range(8192, len(content), 4096):
        content[begin : begin + 64] = SECRET.encode().ljust(64, b"\xa5")
    db.write_bytes(content)

    answer = await caller.send("GET", f"/threads/{threads[0]}/messages")

    assert answer.status == 503
    assert "database disk image is malformed" in answer.message
    assert SECRET not in answer.text + caplog.text
