"""Rows read a few at a time, with other statements in between."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import psycopg
import pytest

from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.server.api_errors import Refusal
from openai_runs.server.store.postgres.connection import Connection
from tests.server.support import Caller

NUMBERS = "SELECT n, repeat('x', %(size)s) FROM generate_series(1, %(rows)s) AS n"


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    """A connection in a transaction."""
    with psycopg.connect(postgres_url, autocommit=True) as raw, raw.transaction():
        yield Connection(raw)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 100])
def test_all_rows_are_read_however_many_there_are(connection: Connection, rows: int) -> None:
    """In order, also where they end with what is fetched at once."""
    found = connection.each(NUMBERS, {"size": 1, "rows": rows})

    assert [number for number, _ in found] == list(range(1, rows + 1))


def test_other_statements_are_executed_between_the_rows(connection: Connection) -> None:
    """A page of runs asks, run by run, for what they have in common."""
    seen = []
    for number, _ in connection.each(NUMBERS, {"size": 1, "rows": 40}):
        inner = connection.each(NUMBERS, {"size": 1, "rows": 20})
        seen.append((number, len(list(inner)), connection.execute("SELECT 7").fetchone()[0]))

    assert seen == [(number, 20, 7) for number in range(1, 41)]


def test_rows_that_nobody_takes_are_not_read(connection: Connection) -> None:
    """Ten gigabytes, of which the first row is looked at."""
    rows = iter(connection.each(NUMBERS, {"size": 1_000_000, "rows": 10_000}))

    assert next(rows)[0] == 1
    assert connection.execute("SELECT 7").fetchone() == (7,)


@pytest.mark.parametrize("how", ["execute", "each"])
def test_character_that_cannot_be_stored_is_a_refusal_of_the_request(
    connection: Connection, how: str
) -> None:
    """PostgreSQL has no U+0000 in a text: the sentence says so, and it is no fault of ours."""
    with pytest.raises(Refusal, match=r"U\+0000") as refused:
        list(getattr(connection, how)("SELECT %(text)s::text", {"text": "a\0b"}))

    assert refused.value.status_code == 400


async def test_texts_and_metadata_may_hold_the_character_zero(postgres_db: str) -> None:
    """They are stored as JSON, which escapes it; an id is not, and a request for it is a 400."""
    server = LocalServer(postgres_db, ScriptedBackend(["a\0b"]))
    async with server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        thread = await caller.post("/threads", {"metadata": {"\0": "c\0d"}})
        run = await caller.settled(await caller.start("e\0f"))
        listed = await caller.get(f"/threads/{run['thread_id']}/messages?order=asc")
        refused = await caller.send("GET", "/threads/thread_%00")

    assert thread["metadata"] == {"\0": "c\0d"}
    texts = [message["content"][0]["text"]["value"] for message in listed["data"]]
    assert texts == ["e\0f", "a\0b"]
    assert refused.status == 400
