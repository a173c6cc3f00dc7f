"""Hearing what other processes commit: refused where it cannot work, mended where it broke."""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import psycopg
import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer
from openai_runs.server.store.postgres import listener
from openai_runs.server.store.postgres.connection import connection_options
from openai_runs.server.store.postgres.listener import CHANNEL, Listener
from openai_runs.server.store.postgres.session import Session
from tests.databases import execute
from tests.server.store.postgres.proxying import PostgresProxy

MINE = "p1"


def notify(url: str, payload: str) -> None:
    """Send a notification."""
    execute(url, "SELECT pg_notify(?, ?)", CHANNEL, payload)


@contextmanager
def listening(url: str) -> Iterator[tuple[Listener, Queue[str | None]]]:
    """Yield who listens, and what is heard."""
    heard: Queue[str | None] = queue.Queue()
    made = Listener(url, connection_options(url), MINE, heard.put)
    made.start(lambda payload: notify(url, payload))
    try:
        yield made, heard
    finally:
        made.stop()


def threads() -> list[str]:
    """Return the names of the threads that listen."""
    return [each.name for each in threading.enumerate() if each.name == "openai_runs.listener"]


def test_changes_of_other_processes_are_heard_and_its_own_are_not(postgres_db: str) -> None:
    """In the order of their commits; what one has written itself, it knows."""
    with listening(postgres_db) as (_, heard):
        for payload in ("p2 run_1", f"{MINE} run_2", "p3 run_3"):
            notify(postgres_db, payload)

        assert [heard.get(timeout=30) for _ in range(2)] == ["run_1", "run_3"]
    assert heard.empty()
    assert threads() == []


def test_start_is_refused_when_notifications_do_not_arrive(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind PgBouncer in transaction mode, which listens on a connection of somebody else."""
    monkeypatch.setattr(listener, "_HELLO_TIME", 0.2)
    made = Listener(postgres_db, connection_options(postgres_db), MINE, print)

    with pytest.raises(ConfigError) as refused:
        made.start(lambda payload: None)

    assert "a NOTIFY did not arrive within 0.2 s" in str(refused.value)
    assert "PgBouncer in transaction mode" in str(refused.value)
    assert threads() == []


async def test_server_is_refused_when_its_notifications_are_lost(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves no thread and no connection behind."""
    monkeypatch.setattr(listener, "_HELLO_TIME", 0.2)
    monkeypatch.setattr(Listener, "_connect", _connect_without_listening)

    with pytest.raises(ConfigError, match="a NOTIFY did not arrive"):
        await LocalServer(postgres_db).start()

    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    deadline = time.monotonic() + 30
    while execute(postgres_db, query) != [(1,)]:  # the server closes what it is told to close
        assert time.monotonic() < deadline
    assert threads() == []


def _connect_without_listening(self: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(**self._options, autocommit=True)


@pytest.mark.parametrize("how", ["ended by the server", "cut by the network"])
def test_connection_that_was_lost_is_opened_again(
    proxy: PostgresProxy, postgres_db: str, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Whatever was missed meanwhile: all counts as changed, once; then each change is heard."""
    caplog.set_level("INFO")
    with listening(proxy.url) as (_, heard):
        proxy.refusing = True
        if how == "cut by the network":
            proxy.cut_all()
        else:
            execute(
                postgres_db,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        while not proxy.refused:
            time.sleep(0.01)
        notify(postgres_db, "p2 missed")
        proxy.refusing = False
        assert heard.get(timeout=30) is None
        notify(postgres_db, "p2 run_1")
        assert heard.get(timeout=30) == "run_1"

    assert "the connection that hears of changes was lost" in caplog.text
    assert threads() == []


def test_connection_that_says_nothing_is_checked(
    proxy: PostgresProxy, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was cut off without a word is found by asking, and opened again."""
    monkeypatch.setattr(listener, "_CHECKED", 0.05)
    with listening(proxy.url) as (_, heard):
        proxy.cut_at("SELECT 1", answered=False)
        assert heard.get(timeout=30) is None

    assert proxy.cuts == 1


def test_connection_whose_server_never_answers_is_opened_again(
    proxy: PostgresProxy, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy whose server is gone: what is sent is acknowledged, and that is all."""
    monkeypatch.setattr(listener, "_CHECKED", 0.05)
    monkeypatch.setattr(listener, "_SILENT", 0.2)
    with listening(proxy.url) as (_, heard):
        proxy.silence()
        assert heard.get(timeout=30) is None
        notify(postgres_db, "p2 run_1")
        assert heard.get(timeout=30) == "run_1"


def test_connection_is_opened_again_once_the_process_has_descriptors(
    postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver needs one to connect; a process at its limit must not be deaf for good."""
    opened, failed = Session.connect, threading.Event()

    def connect(**options: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(**options)

    with listening(postgres_db) as (_, heard):
        monkeypatch.setattr(Session, "connect", connect)
        execute(
            postgres_db,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert heard.get(timeout=30) is None

    assert failed.is_set()


def test_it_is_stopped_while_the_database_is_away(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose database is gone can still end."""
    with listening(proxy.url):
        proxy.refusing = True
        proxy.cut_all()
        while not proxy.refused:
            time.sleep(0.01)

    assert threads() == []
