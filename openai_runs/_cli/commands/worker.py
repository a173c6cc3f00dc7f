"""`openai-runs worker`: executes runs that servers take in, until a signal ends it."""

import asyncio
import os

import msgspec

from openai_runs._cli.commands.serve import (
    describe_backend,
    log_to_stderr,
    make_tracing,
    run_until_signal,
    state_facts,
)
from openai_runs._cli.ending import USAGE, Stop, stopped
from openai_runs._cli.models import Models, choose_backend
from openai_runs._cli.signals import SIGNALS
from openai_runs.errors import ConfigError
from openai_runs.server.listening import max_model_connections, raise_descriptor_limit
from openai_runs.server.store import is_url, place_of
from openai_runs.server.worker import Worker

__all__ = ["Settings", "perform"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told."""

    db: str
    models: Models
    otel: bool = False


def perform(settings: Settings) -> int:
    """Execute runs until SIGTERM, SIGHUP or Ctrl-C; return the exit code.

    Raises:
        Stop: The settings contradict each other, or the database cannot be used.
    """
    backend = choose_backend(settings.models, os.environ)
    if not is_url(settings.db):
        sentence = (
            f"--db {settings.db}: a file is for one server, which executes its runs; a worker "
            "needs a database that processes share, --db postgresql://..."
        )
        raise Stop(sentence, USAGE)
    log_to_stderr()
    raise_descriptor_limit()
    worker = Worker(
        settings.db,
        backend,
        max_concurrent_runs=max_model_connections(),
        tracing=make_tracing() if settings.otel else None,
    )
    SIGNALS.install()
    SIGNALS.keep()
    try:
        return asyncio.run(_serve(worker, settings))
    finally:
        SIGNALS.ignore()


async def _serve(worker: Worker, settings: Settings) -> int:
    try:
        with SIGNALS.cancelling() as starting:
            await worker.start()
    except ConfigError as error:
        raise Stop(str(error)) from error
    if starting.cancelled_caught:
        return stopped(SIGNALS.received)
    facts = {"backend": describe_backend(worker.backend), "database": place_of(settings.db)}
    return await run_until_signal(worker, lambda: state_facts(facts), lambda: "executing runs")
