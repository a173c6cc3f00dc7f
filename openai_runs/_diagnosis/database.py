"""A database file of the server: whether it is whole, of which version, and who has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from openai_runs._diagnosis.finding import Finding
from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from openai_runs.server.store import FileReport

__all__ = ["check_database"]

_RESTORE = "restore it from a backup; `openai-runs export --db FILE` saves what can be read"


async def check_database(path: Path) -> list[Finding]:
    """Return what the file is; nothing in it or beside it changes.

    Cancellation: leaves the check to end by itself.
    """
    from openai_runs.server.store import inspect_file  # needs the extra

    try:
        report = await anyio.to_thread.run_sync(inspect_file, path, abandon_on_cancel=True)
    except ConfigError as error:
        advice = "name another one with --db; `openai-runs serve` makes a file that is not there"
        return [Finding(topic="database", state="fail", text=str(error), advice=advice)]
    return [_file(path, report), *_lock(report)]


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
