"""Two writers on one file, without the lock of the file that would keep the second one out.

The work of the second is done between the reads and the writes of the first.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from openai_runs.server.api_errors import Refusal
from openai_runs.server.objects.builders import (
    NewRun,
    build_assistant,
    build_new_run,
    build_thread,
)
from openai_runs.server.objects.transitions import (
    Delta,
    Ending,
    LostRace,
    Opening,
    Writing,
    message_step,
    new_message,
    tool_step,
)
from openai_runs.server.store import Change, Moved, claims, open_store, rows, runs
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.sqlite.writer import Writer
from openai_runs.server.store.transaction import Transaction
from openai_runs.types.assistants import Assistant, CreateAssistant
from openai_runs.types.messages import Message
from openai_runs.types.runs import CreateRun, Run, ToolOutput
from openai_runs.types.steps import FunctionCallResult, FunctionToolCall
from openai_runs.types.threads import CreateThread
from tests.server.read_committed import ReadCommitted

__all__ = [
    "ACTS",
    "EXECUTING",
    "NOW",
    "OUTPUTS",
    "Event",
    "Pair",
    "Side",
    "at_once",
    "create",
    "open_pair",
    "void",
]

T = TypeVar("T")

NOW = 1_800_000_000
CALL = FunctionToolCall(id="call_1", function=FunctionCallResult(name="f", arguments="{}"))
OUTPUTS = [ToolOutput(tool_call_id="call_1", output="x")]
FRAME = re.compile(rb"event: (.*)\nid: (\d+)-(\d+)\ndata: (.*)\n\n")


class Side:
    """One of the writers, as a server of its own would have it."""

    def __init__(self, db: Path, on_change: Callable[[Change], None]) -> None:
        self.connection = sqlite3.connect(
            db, isolation_level=None, check_same_thread=False, factory=ReadCommitted
        )
        for pragma in ("foreign_keys = ON", "busy_timeout = 20000", "synchronous = OFF"):
            self.connection.execute(f"PRAGMA {pragma}")
        self._writer = Writer(self.connection, on_change)

    def run(self, work: Callable[[Transaction], T], once: Once | None = None) -> T:
        """Return what the work returns, once it is committed; in any thread."""
        return asyncio.run(self._writer.run(work, once))

    def close(self) -> None:
        """End the thread, and close the file."""
        self._writer.stop()
        self._writer.join()
        self.connection.close()


class Event(NamedTuple):
    """An event of a log, as it is stored."""

    name: str
    epoch: int
    seq: int
    data: Any


class Written(NamedTuple):
    """What an execution was let write, and the epoch that the run must be in after that."""

    run_id: str
    epoch: int


class Pair:
    """Two writers, and a thread on which they make runs."""

    def __init__(self, sides: tuple[Side, Side], changes: list[Change]) -> None:
        self.first, self.second = sides
        self.changes = changes
        self.thread_id = self.assistant_id = ""
        self.runs: list[str] = []
        self.claims: list[tuple[Run, int]] = []
        """What was claimed, with its epoch; most are superseded by now."""
        self.metadata: dict[str, dict[str, str]] = {}
        """What each run was given last."""
        self._numbers = itertools.count()

    def begin(self) -> None:
        """Forget what was, and make a thread with one run."""
        assistant = build_assistant(CreateAssistant(model="m"), NOW)
        thread = build_thread(CreateThread(), NOW)
        self.thread_id, self.assistant_id = thread.id, assistant.id
        self.first.run(lambda tx: rows.add(tx.connection, assistant))
        self.first.run(lambda tx: rows.add(tx.connection, thread))
        for each in (self.runs, self.claims, self.metadata, self.changes):
            each.clear()
        self.perform(self.first, "create", 0)

    def perform(self, side: Side, act: str, which: int) -> object:
        """Do it; None if it is refused, since somebody else was first."""
        try:
            return ACTS[act](self, side, which)
        except (Refusal, LostRace):
            return None

    def race(self, act: str, between: str, after: int = 0, which: int = 0) -> None:
        """Have the second writer do something between the reads and the writes of the first."""
        self.first.connection.race_with(
            lambda: void(self.perform(self.second, between, which)), after=after
        )
        done = self.perform(self.first, act, which)
        if isinstance(done, Written):
            sql = "SELECT epoch FROM runs WHERE id = ?"
            epoch = self.second.connection.execute(sql, (done.run_id,)).fetchone()
            assert epoch == (done.epoch,), "what is superseded has written"
        self.first.connection.finish_race()

    def make(self, stored: Assistant) -> NewRun:
        """Return a run as it is stored first."""
        return build_new_run(stored, self.thread_id, CreateRun(assistant_id=stored.id), NOW, 600)

    def number(self) -> int:
        """Return a number that was not there before."""
        return next(self._numbers)

    def events(self, run_id: str) -> list[Event]:
        """Return the log of the run."""
        sql = "SELECT first, last, body FROM events WHERE run_id = ? ORDER BY last"
        found = []
        for first, last, body in self.second.connection.execute(sql, (run_id,)).fetchall():
            row = [
                Event(name.decode(), int(epoch), int(seq), msgspec.json.decode(data))
                for name, epoch, seq, data in FRAME.findall(body)
            ]
            assert [event.seq for event in row] == list(range(first, last + 1))
            found += row
        return found

    def moves(self, run_id: str) -> list[str]:
        """Return the statuses that were announced, in the order of the commits."""
        return [c.status for c in self.changes if isinstance(c, Moved) and c.id == run_id]

    def bodies(self, sql: str, *parameters: str) -> list[Any]:
        """Return the objects that a query finds."""
        found = self.second.connection.execute(sql, parameters).fetchall()
        return [msgspec.json.decode(body) for (body,) in found]

    def stored_metadata(self) -> dict[str, Any]:
        """Return the metadata of each run."""
        found = self.bodies("SELECT body FROM runs WHERE thread_id = ?", self.thread_id)
        return {run["id"]: run["metadata"] for run in found}


def void(_: object) -> None:
    """Return nothing."""


def _run(pair: Pair, which: int) -> str:
    return pair.runs[-1 - which % len(pair.runs)]


def _claim(pair: Pair, which: int) -> tuple[Run, int]:
    if not pair.claims:
        message = "nothing was claimed"
        raise LostRace(message)
    return pair.claims[-1 - which % len(pair.claims)]


def create(pair: Pair, side: Side, which: int) -> object:
    """A client starts a run on the thread."""
    run = side.run(lambda tx: runs.create(tx, pair.thread_id, pair.assistant_id, pair.make))
    pair.runs.append(run.id)
    return run


def claim(pair: Pair, side: Side, which: int) -> object:
    """An executor claims the run."""
    run_id = _run(pair, which)
    made = side.run(lambda tx: claims.claim(tx, run_id, NOW))
    if made is not None:
        pair.claims.append((made.run, made.epoch))
    return made


def pieces(run: Run, epoch: int) -> list[Writing]:
    """Return a message that begins, and a delta that says whose it is."""
    message = new_message(run, NOW)
    delta = {"id": message.id, "object": "thread.message.delta", "delta": {"content": []}}
    data = msgspec.json.encode({**delta, "by": epoch})
    opening = Opening(step=message_step(run, message, NOW), message=message)
    return [opening, Delta("thread.message.delta", data)]


def write(pair: Pair, side: Side, which: int) -> object:
    """The executor stores what the model has said so far."""
    run, epoch = _claim(pair, which)
    side.run(lambda tx: claims.write(tx, run, epoch, pieces(run, epoch), NOW))
    return Written(run.id, epoch)


def require_action(pair: Pair, side: Side, which: int) -> object:
    """The executor ends its turn with a call."""
    run, epoch = _claim(pair, which)
    turn = Ending(status="completed", text="Let me see.", calls=[CALL])
    last = [*pieces(run, epoch), Opening(step=tool_step(run, NOW))]
    side.run(lambda tx: claims.require_action(tx, run.id, epoch, last, turn=turn, now=NOW))
    return Written(run.id, epoch)


def complete(pair: Pair, side: Side, which: int) -> object:
    """The executor ends the run."""
    run, epoch = _claim(pair, which)
    done, last = Ending(status="completed", text="Done."), pieces(run, epoch)
    ended = side.run(lambda tx: claims.end(tx, run.id, done, NOW, writings=last, epoch=epoch))
    return Written(run.id, epoch) if ended is not None else None


def put_back(pair: Pair, side: Side, which: int) -> object:
    """The executor stops, and puts the run back."""
    run, epoch = _claim(pair, which)
    side.run(lambda tx: claims.put_back(tx, run.id, epoch, NOW))
    return Written(run.id, epoch + 1)


def end_cancelled(pair: Pair, side: Side, which: int) -> object:
    """The engine ends a run that is being cancelled."""
    run_id, ending = _run(pair, which), Ending(status="cancelled")
    return side.run(lambda tx: claims.end(tx, run_id, ending, NOW, writings=[]))


def expire(pair: Pair, side: Side, which: int) -> object:
    """The engine ends a run whose time is up."""
    run_id, ending = _run(pair, which), Ending(status="expired")
    return side.run(lambda tx: claims.end(tx, run_id, ending, NOW, writings=[]))


def cancel(pair: Pair, side: Side, which: int) -> object:
    """A client cancels the run."""
    run_id = _run(pair, which)
    return side.run(lambda tx: runs.cancel(tx, pair.thread_id, run_id, NOW))


def submit(pair: Pair, side: Side, which: int) -> object:
    """A client answers the call."""
    run_id = _run(pair, which)
    return side.run(lambda tx: runs.submit(tx, pair.thread_id, run_id, OUTPUTS, NOW))


def modify(pair: Pair, side: Side, which: int) -> object:
    """A client changes the metadata."""
    run_id, metadata = _run(pair, which), {"number": str(pair.number())}
    run = side.run(lambda tx: runs.update_run(tx, pair.thread_id, run_id, {"metadata": metadata}))
    pair.metadata[run_id] = metadata
    return run


def modify_message(pair: Pair, side: Side, which: int) -> object:
    """A client changes the metadata of the newest message."""
    found = pair.bodies("SELECT body FROM messages ORDER BY seq DESC LIMIT 1")
    if not found:
        return None
    message = msgspec.convert(found[0], Message)
    metadata = {"number": str(pair.number())}
    return side.run(lambda tx: rows.rewrite(tx.connection, message, metadata=metadata))


Act = Callable[[Pair, Side, int], object]
ACTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        create,
        claim,
        write,
        require_action,
        complete,
        put_back,
        end_cancelled,
        expire,
        cancel,
        submit,
        modify,
        modify_message,
    )
}
"""Whatever writes to a run."""
EXECUTING = ["claim", "write", "require_action", "submit", "claim", "write"]
"""The way to a run of which everything is there."""


def at_once(*works: Callable[[], object]) -> None:
    """Do all of it in threads that begin together."""
    start = threading.Barrier(len(works))

    def work(each: Callable[[], object]) -> None:
        start.wait()
        each()

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work, each) for each in works]:
            done.result()


@contextmanager
def open_pair(db: Path) -> Iterator[Pair]:
    """Open both writers of a new file."""

    async def make() -> None:
        store = await open_store(db, void)
        await store.aclose()

    asyncio.run(make())
    changes: list[Change] = []
    sides = Side(db, changes.append), Side(db, changes.append)
    try:
        yield Pair(sides, changes)
    finally:
        for side in sides:
            side.close()
