"""A database of the server: whether it can be used, of which version, and who uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from openai_runs._diagnosis.finding import Finding
from openai_runs._protocol.hosts import is_database_url
from openai_runs.config import CLOCK_TOLERANCE
from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from openai_runs.server.store import FileReport
    from openai_runs.server.store.postgres.inspection import SharedReport

__all__ = ["check_database"]

_NEEDED = 13
"""Connections that one process opens at most."""
_RESTORE = "restore it from a backup; `openai-runs export --db FILE` saves what can be read"


async def check_database(db: str) -> list[Finding]:
    """Return what the database is, a file or at a URL; nothing in it or beside it changes.

    Cancellation: leaves the check to end by itself.
    """
    if is_database_url(db):
        return await _check_shared(db)
    from openai_runs.batch.comparing import is_checkpoint  # needs POSIX
    from openai_runs.server.store import inspect_file  # needs the extra

    path = Path(db)
    try:
        report = await anyio.to_thread.run_sync(inspect_file, path, abandon_on_cancel=True)
    except ConfigError as error:
        advice = "name another one with --db; `openai-runs serve` makes a file that is not there"
        return [Finding(topic="database", state="fail", text=str(error), advice=advice)]
    is_of_batch = await anyio.to_thread.run_sync(is_checkpoint, path)
    if report.problem and is_of_batch:
        text = f"{path}: it is the checkpoint of a batch, not the database of a server"
        advice = f"`openai-runs batch status {path}` shows how far the batch is"
        return [Finding(topic="database", state="fail", text=text, advice=advice)]
    return [_file(path, report), *_lock(report)]


async def _check_shared(url: str) -> list[Finding]:
    from openai_runs.server.store import inspect_database  # needs the extra

    try:
        report = await anyio.to_thread.run_sync(inspect_database, url, abandon_on_cancel=True)
    except ConfigError as error:
        # What to do stands in its sentence.
        return [Finding(topic="database", state="fail", text=str(error))]
    found = [_reached(report), *_clock(report), _schema(report)]
    if report.problem:
        found.append(Finding(topic="notifications", state="fail", text=report.problem))
    else:
        found.append(Finding(topic="notifications", state="ok", text="arrive"))
    return found + (_work(report) if report.version == report.newest_version else [])


def _reached(report: SharedReport) -> Finding:
    text = (
        f"{report.place}: {report.server}, {report.size_bytes:,} bytes, "
        f"{report.connections} of {report.max_connections} connections"
    )
    if report.max_connections - report.connections >= _NEEDED:
        return Finding(topic="database", state="ok", text=text)
    advice = "raise max_connections of PostgreSQL: each process of ours opens up to 13"
    return Finding(topic="database", state="warn", text=text, advice=advice)


def _clock(report: SharedReport) -> Iterator[Finding]:
    """Yield whether the clocks differ, if they do."""
    if abs(report.clock_ahead) > CLOCK_TOLERANCE:
        text = f"that of this machine is {report.clock_ahead:+.0f} s from PostgreSQL's"
        advice = "set both by NTP: each process lets runs expire by its own"
        yield Finding(topic="clock", state="warn", text=text, advice=advice)


def _schema(report: SharedReport) -> Finding:
    version, newest = report.version, report.newest_version
    if version > newest:
        text = f"version {version}, newer than {newest}"
        advice = "use the version of this package that made it"
        return Finding(topic="schema", state="fail", text=text, advice=advice)
    if version == newest:
        return Finding(topic="schema", state="ok", text=f"version {version}")
    if not version:
        text, advice = "no tables of this package yet", "the first server makes them"
    else:
        text, advice = f"version {version} of {newest}", "the next server brings it up to date"
    return Finding(topic="schema", state="warn", text=text, advice=advice)


def _work(report: SharedReport) -> list[Finding]:
    """Return who executes runs, and how many wait."""
    workers = Finding(topic="workers", state="ok", text=f"{report.workers} at work")
    if not report.workers:
        advice = "start `openai-runs worker`, or a server without --no-execute"
        workers = Finding(topic="workers", state="warn", text="none at work", advice=advice)
    text = f"{report.queued} queued, {report.in_progress} in progress"
    if report.oldest_seconds:
        text += f"; the oldest that is not over is {report.oldest_seconds} s old"
    return [workers, Finding(topic="runs", state="ok", text=text)]


def _file(path: Path, report: FileReport) -> Finding:
    size = f"{report.size_bytes:,} bytes"
    if report.problem:
        return Finding(
            topic="database", state="fail", text=f"{path}: {report.problem}", advice=_RESTORE
        )
    if report.version > report.newest_version:
        return Finding(
            topic="database",
            state="fail",
            text=f"{path}: schema {report.version}, newer than {report.newest_version}",
            advice="use the version of this package that made it",
        )
    if 0 < report.version < report.newest_version:
        return Finding(
            topic="database",
            state="warn",
            text=f"{path}: schema {report.version} of {report.newest_version}, {size}",
            advice="the next server brings it up to date, and keeps a copy",
        )
    text = f"{path}: whole, schema {report.version}, {size}"
    return Finding(topic="database", state="ok", text=text)


def _lock(report: FileReport) -> Iterator[Finding]:
    if report.lock_problem:
        yield Finding(
            topic="lock",
            state="warn",
            text=report.lock_problem,
            advice="if a server is just starting, ask again",
        )
    elif report.server_url:
        yield Finding(topic="lock", state="ok", text=f"served at {report.server_url}")
    else:
        yield Finding(topic="lock", state="ok", text="free: no server has the file")
