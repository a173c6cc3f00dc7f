"""The sweep of kills sees what it looks for."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from tests.e2e.killing import Found, look, mix

FAIL = """
UPDATE runs SET status = 'failed',
    body = json_set(body, '$.last_error', json_object('message', '{}')) WHERE seq = 1
"""
DAMAGES = {
    "a run is gone": ("DELETE FROM runs WHERE seq = 1", "lost"),
    "a run has another id": ("UPDATE runs SET id = 'run_other' WHERE seq = 1", "lost"),
    "a key has two runs": (
        "UPDATE runs SET body = json_set(body, '$.metadata.key', 'key-1') WHERE seq = 1",
        "doubled",
    ),
    "a run has no answer": ("DELETE FROM messages", "doubled"),
    "a run is queued": ("UPDATE runs SET status = 'queued' WHERE seq = 1", "stuck"),
    "a run expired": ("UPDATE runs SET status = 'expired' WHERE seq = 1", "stuck"),
    "a run is given up": (FAIL.format("The server crashed 3 times in a row"), "given_up"),
    "a run failed": (FAIL.format("The server had an error."), "failed"),
}


async def left_behind(db: Path) -> dict[str, str]:
    """Leave a file with three completed runs, and return their ids by key."""
    made = {}
    async with LocalServer(db) as server, AsyncClient(server.url) as client:
        assistant = await client.assistants.create(model="m")
        for number in range(3):
            run = await client.threads.create_and_run_poll(
                assistant_id=assistant.id,
                thread={"messages": [{"role": "user", "content": "hi"}]},
                metadata={"key": f"key-{number}"},
            )
            made[f"key-{number}"] = run.id
    return made


async def test_nothing_is_found_where_all_is_right(tmp_path: Path) -> None:
    """Three runs, each acknowledged, there once and answered once."""
    found = look(tmp_path / "runs.db", await left_behind(tmp_path / "runs.db"))

    assert found == Found(3, [], [], [], [], [])
    assert found.is_right


@pytest.mark.parametrize("what", DAMAGES)
async def test_damage_is_found(tmp_path: Path, what: str) -> None:
    """Lost, doubled, stuck, given up or failed: by its name."""
    made = await left_behind(tmp_path / "runs.db")
    statement, name = DAMAGES[what]
    with closing(sqlite3.connect(tmp_path / "runs.db")) as file, file:
        file.execute(statement)

    found = look(tmp_path / "runs.db", made)

    assert getattr(found, name)
    assert not found.is_right


def test_question_of_a_key_is_always_the_same() -> None:
    """A program that was killed asks again what it asked before."""
    assert [mix(f"caller-{number}") for number in range(50)] == [
        mix(f"caller-{number}") for number in range(50)
    ]
    assert {mix(f"caller-{number}") for number in range(50)} == {
        "hello",
        "slow",
        "pause",
        "seconds",
    }
