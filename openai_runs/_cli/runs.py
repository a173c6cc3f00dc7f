"""`openai-runs runs show` and `runs wait`: runs that are there, whoever started them."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import anyio.to_thread
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from openai_runs import AsyncClient, OpenAIRunsError, Run, RunResult, RunWaitTimeout
from openai_runs._cli.connecting import Place, check_ids, connect, explained
from openai_runs._cli.describing import describe, verdict
from openai_runs._cli.ending import TIMED_OUT, USAGE, Stop, code_of
from openai_runs._cli.interrupting import carry_out
from openai_runs._cli.outputs import print_json, print_text, printable

__all__ = ["Target", "show", "wait"]

_COLUMN: Final = 12
"""Characters before the words."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which run, and where it is."""

    run_id: str
    thread_id: str
    place: Place


def show(target: Target, *, as_json: bool) -> int:
    """Print the run with its steps and messages; return the exit code.

    Raises:
        Stop: It cannot be shown.
        Closed: Nobody reads it.
    """
    _check(target)
    try:
        return carry_out(partial(_show, target, as_json=as_json))
    except OpenAIRunsError as error:
        raise explained(error, target.place) from error


def wait(target: Target, *, timeout: float | None, as_json: bool) -> int:
    """Wait until the run is settled and print its status; return the exit code of that.

    Raises:
        Stop: It cannot be waited for, or the time was up.
        Closed: Nobody reads it.
    """
    _check(target)
    try:
        return carry_out(partial(_wait, target, timeout, as_json=as_json))
    except RunWaitTimeout as error:
        raise Stop(str(error), TIMED_OUT) from error
    except OpenAIRunsError as error:
        raise explained(error, target.place, timed=timeout is not None) from error


async def _show(target: Target, *, as_json: bool) -> int:
    async with _reached(target.place, at_work=False) as client:
        run = await client.runs.retrieve(target.run_id, thread_id=target.thread_id)
        result = await client.runs.result(run)
    if as_json:
        print_json({"run": run.to_dict(), "steps": result.steps, "messages": result.messages})
    else:
        print_text(_shown(result))
    return 0


async def _wait(target: Target, timeout: float | None, *, as_json: bool) -> int:
    async with _reached(target.place, at_work=True) as client:
        with _progress(target.run_id) as note:
            try:
                run = await client.runs.wait(
                    target.run_id, thread_id=target.thread_id, timeout=timeout, on_status=note
                )
            except RunWaitTimeout as error:
                if as_json and isinstance(error.run, Run):
                    print_json(error.run.to_dict())
                raise
    if as_json:
        print_json(run.to_dict())
    else:
        print_text(printable(f"{run.id} {verdict(run)}"))
    return code_of(run.status)


def _shown(result: RunResult) -> str:
    """Return the result in words, dressed for standard output."""
    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        for name, words in describe(result):
            told = printable(words).replace("\n", f"\n{' ' * _COLUMN}")
            console.print(Text.assemble((f"{name:<{_COLUMN}}", "dim"), told), soft_wrap=True)
    return captured.get().removesuffix("\n")


@asynccontextmanager
async def _reached(place: Place, *, at_work: bool) -> AsyncIterator[AsyncClient]:
    """Yield a client of the server that has the runs; `at_work` if it must carry them out."""
    if place.db is None:
        async with connect(place) as client:
            yield client
        return
    from openai_runs.server import LocalServer, serving_url  # loads the database's room

    if not place.db.is_file():
        sentence = f"there is no database '{place.db}'"
        raise Stop(sentence)
    url = await anyio.to_thread.run_sync(serving_url, place.db)
    if url is not None:
        served = msgspec.structs.replace(place, base_url=url, db=None)
        async with connect(served) as client:
            yield client
    elif at_work:
        sentence = (
            f"no server works on the runs of '{place.db}': start one with "
            f"`openai-runs serve --db {place.db}`, or look with `openai-runs runs show`"
        )
        raise Stop(sentence)
    else:
        # Who only looks must not have runs carried out that wait for a server with a model.
        idle = LocalServer(place.db, max_concurrent_runs=0)
        async with idle as server, AsyncClient(server.url, api_key=None) as client:
            yield client


@contextmanager
def _progress(run_id: str) -> Iterator[Callable[[Run], None] | None]:
    """Show on a terminal what is waited for, and since when."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"waiting for {run_id}")

        def note(run: Run) -> None:
            progress.update(task, description=printable(f"waiting for {run_id}: {run.status}"))

        yield note


def _check(target: Target) -> None:
    check_ids(run_id=target.run_id, thread_id=target.thread_id)
    if target.place.db is None and target.place.url(os.environ) is None:
        sentence = (
            "which server has the run? Set OPENAI_BASE_URL or pass --base-url, or --db for the "
            "file of a server of this package. OpenAI switched its own Assistants endpoints off "
            "on 2026-08-26, so there is no default"
        )
        raise Stop(sentence, USAGE)
