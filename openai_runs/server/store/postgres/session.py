"""A connection that does not wait for ever for a server which says nothing.

Theory of operation. A lost network is found by TCP. But a frozen process, or a proxy whose server
is gone, still acknowledges what is sent, and never answers: whoever waits would do so for good,
with a new server within reach. So a statement without a word for `silence` seconds ends its
connection. What comes of it is what comes of any connection that is lost.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.rows import TupleRow

from openai_runs.config import POSTGRES_SILENCE

if TYPE_CHECKING:
    from psycopg.abc import PQGen

__all__ = ["AsyncSession", "Session"]

T = TypeVar("T")

_NOTIFIED: Final = 150.0
"""Seconds without a notification, where one comes each minute, after which the server is lost."""


class Session(psycopg.Connection[TupleRow]):
    """A connection of the driver's, with an end to each wait."""

    silence: float = POSTGRES_SILENCE

    def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait for the server, as the driver does for each statement.

        Raises:
            psycopg.OperationalError: It said nothing for too long; the connection is closed.
        """
        return super().wait(_ending(self, gen), *args, **options)


class AsyncSession(psycopg.AsyncConnection[TupleRow]):
    """The same in an event loop, for who is notified of something each minute."""

    silence: float = _NOTIFIED

    async def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """Wait for the server, as the driver does for each statement, and for notifications.

        Raises:
            psycopg.OperationalError: It said nothing for too long; the connection is closed.
        """
        return await super().wait(_ending(self, gen), *args, **options)


def _ending(session: Session | AsyncSession, steps: PQGen[T]) -> PQGen[T]:
    silent_since: float | None = None
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if ready:
                silent_since = None
            elif silent_since is None:
                silent_since = monotonic()
            elif monotonic() - silent_since > session.silence:
                session.pgconn.finish()
                message = "the database server did not answer"
                raise psycopg.OperationalError(message)
            wanted = steps.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
