"""Jobs of procrastinate: they wake the processes that execute runs.

Theory of operation. A run that is queued and its job are written in one transaction, and so are the
claim of the run and the removal of the job. So while a run waits there is a job, which wakes a
process that has a free slot, on whichever machine; and what is to be done with the run stands in
its row alone. A process that is woken claims what is queued, as much as it has slots for. A job
that wakes nobody, since its process was killed, costs a second: processes look for themselves too.

One job for each run, executed for as long as the run, would be simpler. But procrastinate fetches
jobs one by one, and commits for each fetch and each end: `scaling.md` has the figures. It is used
as it is, but for two things. Its own commits need not be on the disk when they are answered, as no
run depends on them. And it has a periodic task, without which a worker never notices that its
listener has lost the database.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import anyio
import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Status
from procrastinate.schema import SchemaManager
from procrastinate.worker import Worker

from openai_runs.server.store.postgres.connection import setting_session
from openai_runs.server.store.postgres.session import AsyncSession

if TYPE_CHECKING:
    from openai_runs.server.store.postgres.connection import Connection

__all__ = ["QUEUE", "TASK", "JobQueue", "defer", "make_queue", "remove"]

QUEUE: Final = "openai_runs"
TASK: Final = "openai_runs.wake"

_TIDY: Final = "openai_runs.tidy"
_EACH_MINUTE: Final = "* * * * *"
_DEFER: Final = """
INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock)
SELECT %(queue)s, %(task)s, id FROM unnest(%(ids)s::text[]) AS id
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
_REMOVE: Final = """
DELETE FROM procrastinate_jobs WHERE queueing_lock = ANY(%(ids)s::text[]) AND status = 'todo'
"""
_POLL: Final = 5.0
"""Seconds after which procrastinate looks for jobs of which it has heard nothing."""
_HEARTBEAT: Final = 5.0
_STALLED: Final = 20.0
"""Seconds without a heartbeat after which the jobs of a process are removed."""
_CLOSING: Final = 2.0
_PAUSE: Final = 1.0
"""Seconds before procrastinate's worker is started again that has lost the database."""

_logger = logging.getLogger("openai_runs.server")


def make_queue(connection: Connection) -> None:
    """Make procrastinate's tables, types and functions."""
    connection.execute(SchemaManager.get_schema())


def defer(connection: Connection, run_ids: Iterable[str]) -> None:
    """Have a process woken for these runs, once this is committed."""
    parameters: dict[str, Any] = {"queue": QUEUE, "task": TASK, "ids": list(run_ids)}
    connection.execute(_DEFER, parameters)


def remove(connection: Connection, run_ids: Iterable[str]) -> None:
    """Have nobody woken any more for these runs, which are claimed."""
    connection.execute(_REMOVE, {"ids": list(run_ids)})


class JobQueue:
    """The jobs, as a process that executes runs is woken by them."""

    def __init__(self, options: dict[str, Any]) -> None:
        """Keep what connections are opened with."""
        self._options = options

    async def serve(self, wake: Callable[[], Awaitable[None]]) -> None:
        """Call `wake` for each job that this process gets, one after the other; never returns.

        While `wake` waits, other processes get the jobs.
        """
        while True:
            await _Working(self._app(wake)).run()
            await anyio.sleep(_PAUSE)

    def _app(self, wake: Callable[[], Awaitable[None]]) -> App:
        connector = PsycopgConnector(
            kwargs=self._options,
            configure=_configure,
            connection_class=AsyncSession,
            min_size=1,
            max_size=2,
            name="openai_runs.jobs",
        )
        app = App(connector=connector)

        @app.task(name=TASK, queue=QUEUE)
        async def carry_out() -> None:
            await wake()

        @app.periodic(cron=_EACH_MINUTE)
        @app.task(name=_TIDY, queue=QUEUE)
        async def tidy(timestamp: int) -> None:
            await _remove_stalled(app)

        return app


class _Working:
    """A worker of procrastinate's, which is asked to stop where its caller is cancelled.

    A scope of anyio's cancels again and again: procrastinate, and the pool that it uses, would be
    cancelled in the midst of closing, and leave tasks and connections behind.
    """

    def __init__(self, app: App) -> None:
        """Work for this app, which is not open yet."""
        self._app = app
        self._worker = Worker(
            app=app,
            queues=[QUEUE],
            concurrency=1,
            install_signal_handlers=False,
            delete_jobs="always",
            fetch_job_polling_interval=_POLL,
            update_heartbeat_interval=_HEARTBEAT,
            stalled_worker_timeout=_STALLED,
            shutdown_graceful_timeout=0.0,
        )
        self._scope = anyio.CancelScope()
        self._stopping = False

    async def run(self) -> None:
        """Open the app and work until there is an error, which is logged.

        Cancellation: the worker stops, for which it has `_CLOSING` seconds.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._stop_when_cancelled)
            try:
                with anyio.CancelScope(shield=True):
                    await self._work()
            except (psycopg.Error, ProcrastinateException, OSError) as error:
                words = "the queue of jobs cannot be used: %s; runs are looked for each second"
                _logger.warning(words, type(error).__name__)
            group.cancel_scope.cancel()

    async def _work(self) -> None:
        try:
            with self._scope:
                await self._app.open_async()
                await _remove_stalled(self._app)
                if not self._stopping:
                    await self._worker.run()  # type: ignore[no-untyped-call]
        finally:
            await self._app.close_async()

    async def _stop_when_cancelled(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._stopping = True
            self._scope.deadline = anyio.current_time() + _CLOSING
            self._worker.stop()  # type: ignore[no-untyped-call]


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)
    await connection.execute(*setting_session(synchronous_commit="off"))


async def _remove_stalled(app: App) -> None:
    """Remove the jobs that processes had when they were killed: the runs are in their rows."""
    manager = app.job_manager
    for job in await manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=_STALLED):
        await manager.finish_job(job, status=Status.ABORTED, delete_job=True)
