"""A process that only executes runs, which others take in: no port, a database that is shared."""

from __future__ import annotations

from types import TracebackType

import anyio

from openai_runs._tracing import ServerTracing
from openai_runs.config import DRAIN_GRACE, MAX_CONCURRENT_RUNS
from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Backend
from openai_runs.server.backends.echo import EchoBackend
from openai_runs.server.clock import SystemClock
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.engine import Engine
from openai_runs.server.store import Change, Store, is_url, open_store

__all__ = ["Worker"]


class Worker:
    """Executes the queued runs of a PostgreSQL database, as `LocalServer` does, without the API.

    Args:
        db: The database's URL, `postgresql://...`.
        backend: Where answers come from; None: `EchoBackend()`.
        max_concurrent_runs: Runs executed at the same time.
        tracing: An `openai_runs.otel.Tracing`; None: no spans.

    It may be opened in one task and closed in another. Closing puts runs that are under way back
    into the queue, where another process finds them; `drain` gives them time first.
    """

    def __init__(
        self,
        db: str,
        backend: Backend | None = None,
        *,
        max_concurrent_runs: int = MAX_CONCURRENT_RUNS,
        tracing: ServerTracing | None = None,
    ) -> None:
        """Keep the settings; `start` begins the work.

        Raises:
            ConfigError: The database is a file, which one process has alone.
        """
        if not is_url(db):
            message = (
                f"a worker needs a database that processes share, at postgresql://...; {db!r} is "
                "a file, which one server has alone and executes the runs of"
            )
            raise ConfigError(message)
        self.backend: Backend = backend if backend is not None else EchoBackend()
        self._db = db
        self._max_concurrent_runs = max_concurrent_runs
        self._tracing = tracing
        self._store: Store | None = None
        self._engine: Engine | None = None

    def __repr__(self) -> str:
        return f"<Worker {'at work' if self._engine is not None else 'not started'}>"

    async def start(self) -> None:
        """Open the database, and begin to execute runs.

        Raises:
            ConfigError: The database cannot be used.

        Cancellation: closes what was opened.
        """
        engine: Engine | None = None

        def on_change(change: Change) -> None:
            if engine is not None:
                engine.on_change(change)

        try:
            self._store = await open_store(self._db, on_change)
            engine = self._engine = Engine(
                self._store,
                self.backend,
                SystemClock(),
                Subscribers(0, is_shared=True),
                max_concurrent_runs=self._max_concurrent_runs,
                tracing=self._tracing,
            )
            await engine.start()
        except BaseException:
            await self.aclose()
            raise

    async def drain(self, grace: float = DRAIN_GRACE) -> None:
        """Begin no more runs, let those under way finish for `grace` seconds, put back the rest.

        Args:
            grace: Seconds.

        Cancellation: no more runs begin; those under way go on until the worker is closed.
        """
        if self._engine is not None:
            await self._engine.drain(grace)

    async def aclose(self) -> None:
        """Stop, and close the database; calling it twice is fine.

        Cancellation: by a scope of anyio's, waits until everything is closed.
        """
        engine, self._engine = self._engine, None
        store, self._store = self._store, None
        with anyio.CancelScope(shield=True):
            try:
                if engine is not None:
                    await engine.aclose()
            finally:
                if store is not None:
                    await store.aclose()
                    closing = getattr(self.backend, "aclose", None)
                    if closing is not None:
                        await closing()

    async def __aenter__(self) -> Worker:
        """Begin to execute runs."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.aclose()
