"""What a piece of work writes with, and the changes that are announced after its commit."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from openai_runs.server.store import event_log
from openai_runs.server.store.database import Connection
from openai_runs.server.store.event_log import Cut, Logged, LoggedEvent, Position

__all__ = ["Change", "Edited", "Moved", "Outdated", "Removed", "RunState", "Transaction"]


class RunState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run as it was committed: what one needs to know of it, and what it is answered with."""

    id: str
    thread_id: str
    status: str
    stored: bytes
    """Its JSON as stored: `Parts.join` gives what is sent. All who are answered share it."""


class Moved(RunState, frozen=True, kw_only=True, gc=False):
    """A committed change of a run's status."""

    created_at: int
    expires_at: int | None
    """Unix seconds; None once the run is over."""
    total_tokens: int


class Edited(RunState, frozen=True, kw_only=True, gc=False):
    """A committed change of anything else of a run."""


class Removed(msgspec.Struct, frozen=True):
    """A run that went with its thread."""

    run_id: str


class Outdated(msgspec.Struct, frozen=True):
    """Something of a run was committed: what is held of it is to be read again.

    What a database announces that other processes write to as well. Of this process it may come
    late, and in any order.
    """

    run_id: str | None
    """None: of any run; what was committed meanwhile was not heard."""
    elsewhere: bool = False
    """Whether another process has committed it."""


Change: TypeAlias = Moved | Edited | Removed | Logged | Cut | Outdated
"""What is announced after a commit."""


class Transaction:
    """What a piece of work writes with, and where it says which runs moved."""

    def __init__(self, connection: Connection) -> None:
        """Start with nothing to announce."""
        self.connection = connection
        self.changes: list[Change] = []
        self._events: list[LoggedEvent] = []
        self._end = Position(0, 0)
        self._run_id = ""
        self._at = 0

    def announce(self, change: Change) -> None:
        """Have the change emitted to all listeners, once it is committed."""
        self.changes.append(change)

    def log_events(self, run_id: str, at: int, *logged: LoggedEvent) -> None:
        """Put events of the run into its log, all of one piece of work together."""
        self._run_id = run_id
        self._at = at
        self._events.extend(logged)

    def log_ends_at(self, epoch: int, last: int) -> None:
        """Say where the log of the run ends that is written to."""
        self._end = Position(epoch, last)

    def write_log(self) -> None:
        """Write what was logged of one run; the end of the piece of work, or of this run in it."""
        events, self._events = self._events, []
        if events:
            logged = event_log.append(self.connection, self._run_id, self._at, events, self._end)
            self.announce(logged)
