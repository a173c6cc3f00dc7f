"""`openai-runs batch run` and `batch status`: many runs from a file."""

import asyncio
import csv
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openai_runs import AsyncClient, OpenAIRunsError, Progress, RateLimits
from openai_runs._cli.answering import warn_of_echo
from openai_runs._cli.connecting import Place, check_ids, connect, explained
from openai_runs._cli.ending import INTERRUPTED, USAGE, Stop, code_of
from openai_runs._cli.functions import load_functions
from openai_runs._cli.interrupting import carry_out
from openai_runs._cli.outputs import print_text, printable, say
from openai_runs._cli.terminal.outage import held_back, reconnecting
from openai_runs.batch import (
    Batch,
    BatchError,
    BatchStatus,
    Lines,
    read_csv,
    read_jsonl,
    read_results,
    status,
)
from openai_runs.config import BATCH_LOG_INTERVAL, BATCH_PATIENCE, MAX_CSV_VALUE

__all__ = ["Job", "carry_out_job", "show_status"]

_BAR: Final = 60
"""Characters of the bar."""
_SHEETS: Final = {".tsv", ".tab", ".xls", ".xlsx", ".ods"}
"""Ends of the names of tables that are no CSV."""
_PROMPT: Final = "'Sum up: {column}', or --template"
_MAX_EXAMPLE: Final = 300
"""Characters that are shown of an error or a prompt."""
_REFRESH: Final = 0.2
"""Seconds between two drawings of it."""
_CHECK: Final = 0.5
"""Seconds between two checks whether the server answers, where there is no bar."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told."""

    source: Path
    out: Path
    checkpoint: Path
    errors: Path | None
    prompt: str | None
    template: Path | None
    id_column: str | None
    assistant: str | None
    model: str | None
    instructions: str | None
    tools: tuple[str, ...]
    concurrency: int
    rpm: int | None
    retry_failed: bool
    max_failures: int | None
    place: Place


def carry_out_job(job: Job) -> int:
    """Carry the batch out; return the exit code.

    Raises:
        Stop: The arguments contradict each other, or the batch cannot go on.
        Closed: Nobody reads standard error any more.
    """
    _check(job)
    check_ids(job.place, assistant=job.assistant)
    lines = _lines(job)
    tools = load_functions(job.tools)
    try:
        return carry_out(partial(_run, job, lines, tools))
    except BatchError as error:
        raise Stop(printable(str(error))) from error
    except OpenAIRunsError as error:
        stop = explained(error, job.place)
        sentence = f"{stop}; nothing is lost: the same command goes on"
        raise Stop(sentence, stop.code) from error


def show_status(checkpoint: Path) -> int:
    """Print how far the batch of the checkpoint has come.

    Raises:
        Stop: It is no checkpoint, or cannot be read.
        Closed: Nobody reads it.
    """
    try:
        found = status(checkpoint)
    except BatchError as error:
        raise Stop(printable(str(error))) from error
    is_left = found.going and found.process is None
    rows: dict[str, object] = {
        "lines": f"{found.total:,}",
        "completed": f"{found.completed:,}",
        "failed": f"{found.failed:,}",
        "in progress": "0" if is_left else f"{found.going:,}",
        "begun": f"{found.going:,}; the next start goes on with them" if is_left else None,
        "waiting": f"{found.waiting:,}",
        "tokens": f"{found.tokens:,}",
        "orphans": f"up to {found.orphans:,} threads without a run" if found.orphans else None,
        "process": found.process or "none at work",
        "results": found.out,
        "errors": found.errors if found.failed else None,
    }
    text = [f"{name:<13}{value}" for name, value in rows.items() if value is not None]
    text += [f"  {number:,} x {reason}" for reason, number in found.reasons.items()]
    print_text(printable("\n".join(text)))
    return 0


async def _run(job: Job, lines: Lines, tools: list[Callable[..., Any]]) -> int:
    limits = None if job.rpm is None else RateLimits(requests_per_minute=job.rpm)
    async with connect(job.place, limits=limits) as client:
        batch = Batch(
            client,
            checkpoint=job.checkpoint,
            tools=tools,
            concurrency=job.concurrency,
            retry_failed=job.retry_failed,
            max_failures=job.max_failures,
            progress=_Begin(lines),
            assistant=_assistant(job),
        )
        interrupts = _Interrupts(batch, client)
        found = None
        with _summed_up(job, batch, interrupts), interrupts.scope:
            await warn_of_echo(client, job.model, job.place)
            async with _shown(batch.progress, client):
                found = await batch.run(lines, out=job.out, errors=job.errors)
    found = found or await anyio.to_thread.run_sync(_left, job.checkpoint)
    if found is None:
        say("nothing was begun", dim=False)
        return INTERRUPTED
    example = await anyio.to_thread.run_sync(_example, found)
    _conclude(found, example, was_retried=job.retry_failed)
    if interrupts.count:
        return INTERRUPTED
    return code_of("failed" if found.failed else "completed")


def _assistant(job: Job) -> dict[str, str] | str | None:
    """Return the assistant's id, or the settings of one to make, if one is asked for."""
    if job.model is None:
        return job.assistant
    settings = {"model": job.model, "instructions": job.instructions}
    return {name: value for name, value in settings.items() if value is not None}


@contextmanager
def _summed_up(job: Job, batch: Batch, interrupts: "_Interrupts") -> Iterator[None]:
    """Say what this start has done and, where a signal or an error ends it, what is left."""
    is_signalled = is_over = False
    try:
        yield
        is_over = True
    except asyncio.CancelledError:
        is_signalled = True
        raise
    finally:
        interrupts.end()
        if ended := batch.progress.summary():
            say(f"this start: {ended}", dim=False)
        found = None
        if not is_over and (ended or is_signalled):
            with suppress(BatchError):  # what ends the batch is said itself
                found = _left(job.checkpoint)
        if found is not None:
            _conclude(found, "", was_retried=job.retry_failed)


class _Begin:
    """Says once how many lines there are, where no bar does, and the first filled prompt."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._is_said = False

    def __call__(self, progress: Progress) -> None:
        if self._is_said:
            return
        self._is_said = True
        if not Console(stderr=True).is_terminal:
            of_total = f"{progress.done:,} of {progress.total or 0:,} lines done"
            say(f"{of_total}; progress each {BATCH_LOG_INTERVAL:g} s")
        if progress.done != progress.total and (first := _first_prompt(self._lines)):
            say(printable(f"the first prompt: {first}"), dim=False)


def _first_prompt(lines: Lines) -> str:
    """Return what the first row of a CSV asks; "" where that is not one text, or no CSV."""
    if lines.template is None:
        return ""
    for line in islice(lines, 1):
        match line.body:
            case {"thread": {"messages": [{"content": str(prompt)}, *_]}}:
                return _cut(prompt)
    return ""


def _cut(text: str) -> str:
    """Return a text in one line of no more than some hundred characters."""
    shown = " ".join(text.split())
    return f"{shown[:_MAX_EXAMPLE]}..." if len(shown) > _MAX_EXAMPLE else shown


class _Interrupts:
    """Ctrl-C: the first stops the batch, the second leaves it."""

    def __init__(self, batch: Batch, client: AsyncClient) -> None:
        self._batch = batch
        self._client = client
        self.scope = anyio.CancelScope()
        """In which the batch runs."""
        self.count = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)

    def end(self) -> None:
        """Leave the signal to others again."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    def _interrupt(self) -> None:
        self.count += 1
        if self.count == 1:
            self._batch.stop()
            say(self._first(self._batch.progress.running), dim=False)
        else:
            self.scope.cancel()

    def _first(self, going: int) -> str:
        if not going:
            return "nothing was begun"
        lines = "line" if going == 1 else "lines"
        parts = [f"finishing {going} {lines} in progress", held_back(self._client)]
        return "; ".join(filter(None, [*parts, "Ctrl-C again leaves them"]))


class _Log:
    """Lines about a batch without a bar: now and then, and where the server is lost or refuses."""

    def __init__(self, progress: Progress, client: AsyncClient) -> None:
        self._progress = progress
        self._client = client
        self._is_lost = self._is_held_back = False
        self._due = time.monotonic() + BATCH_LOG_INTERVAL

    def __call__(self) -> None:
        lost, outage = reconnecting(self._client), self._client.outage
        if self._is_lost != bool(lost):
            self._is_lost = bool(lost)
            if lost and outage is not None:
                say(f"{outage.reason}; reconnecting for up to {BATCH_PATIENCE:g} s", dim=False)
            else:
                say("the server answers again", dim=False)
        refused = held_back(self._client)
        if self._is_held_back != bool(refused):
            self._is_held_back = bool(refused)
            say(refused or "429s hold nothing back any more", dim=False)
        if time.monotonic() >= self._due:
            self._due += BATCH_LOG_INTERVAL
            say(", ".join(filter(None, [str(self._progress), lost, refused])))


@asynccontextmanager
async def _shown(progress: Progress, client: AsyncClient) -> AsyncIterator[None]:
    """Show the progress: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        log = _Log(progress, client)
        async with _repeated(_CHECK, log):
            yield
        log()
        return

    def draw() -> Table:
        rows = Table.grid()
        rows.add_row(ProgressBar(total=progress.total, completed=progress.done, width=_BAR))
        rows.add_row(Text(printable(str(progress))))
        if lost := reconnecting(client) or held_back(client):
            rows.add_row(Text(lost, style="yellow", overflow="ellipsis", no_wrap=True))
        return rows

    with Live(console=console, get_renderable=draw, auto_refresh=False) as live:
        async with _repeated(_REFRESH, live.refresh):
            yield


@asynccontextmanager
async def _repeated(seconds: float, act: Callable[[], None]) -> AsyncIterator[None]:
    """Do it again and again, each time after so many seconds."""

    async def repeat() -> None:
        while True:
            await anyio.sleep(seconds)
            act()

    failure = None
    async with anyio.create_task_group() as group:
        group.start_soon(repeat)
        try:
            yield
        except Exception as error:  # raised as it is, and not in a group
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _left(checkpoint: Path) -> BatchStatus | None:
    """Return how far an interrupted batch has come; None: there is no checkpoint yet."""
    return status(checkpoint) if checkpoint.exists() else None


def _example(found: BatchStatus) -> str:
    """Return the id and the error of the first line that failed; "" if there is none."""
    if not found.failed or found.errors is None:
        return ""
    for result in islice(read_results(found.errors), 1):
        if result.error is not None:
            return f"{result.custom_id}: {_cut(result.error.message)}"
    return ""


def _conclude(found: BatchStatus, example: str, *, was_retried: bool) -> None:
    """Say what has come of it all."""
    say(f"all starts: {found}", dim=False)
    if found.reasons:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in found.reasons.items())
        advice = f"; --retry-failed retries {found.retryable:,} of them" if found.retryable else ""
        say(f"failed: {reasons}{'' if was_retried else advice}", dim=False)
    if example:
        say(printable(f"the first that failed, {example}"), dim=False)
    if found.orphans:
        say(f"up to {found.orphans:,} threads without a run were left at the server", dim=False)
    errors = f", errors in {found.errors}" if found.failed else ""
    if found.out is not None:
        say(f"results in {found.out}{errors}", dim=False)


def _check(job: Job) -> None:
    place = job.place
    sentence = ""
    if not place.is_lasting(os.environ):
        sentence = (
            "which server is to carry it out? Set OPENAI_BASE_URL or pass --base-url, or --db for "
            "a file of a server of this package"
        )
    elif job.rpm is not None and place.url(os.environ) is None:
        sentence = "--rpm is for a server that is there: use --base-url"
    elif job.assistant is not None and job.model is not None:
        sentence = "--assistant has its model: use one of --assistant and --model"
    elif job.instructions is not None and job.model is None:
        sentence = "--instructions are those of an assistant that --model makes"
    elif place.db is not None and Path(place.db).resolve() in _paths(job):
        sentence = f"--db {place.db} is the file of the server: name others for the batch"
    else:
        sentence = _wrong_kind(job)
    if sentence:
        raise Stop(sentence, USAGE)


def _paths(job: Job) -> list[Path]:
    """Return the files that the batch reads and writes."""
    named = [job.source, job.out, job.checkpoint, job.errors, job.template]
    return [path.resolve() for path in named if path is not None]


def _wrong_kind(job: Job) -> str:
    """Return why the input is not what the other options say; "" if it is."""
    suffix = job.source.suffix.lower()
    given = [name for name in ("prompt", "template") if getattr(job, name) is not None]
    if suffix != ".csv" and job.id_column is not None:
        return "--id-column is for a CSV file: each line of JSON has its custom_id"
    if suffix in _SHEETS:
        return f"{job.source} is no CSV file: save it as CSV UTF-8, with a name that ends in .csv"
    if suffix == ".csv" and not given:
        return f"{job.source} needs --prompt, the message of each row, such as {_PROMPT}"
    if suffix != ".csv" and given:
        return f"--{given[0]} is for a CSV file, and the name of {job.source} does not end in .csv"
    return "--prompt and --template exclude each other" if len(given) > 1 else ""


def _lines(job: Job) -> Lines:
    template = job.prompt if job.template is None else _template(job.template)
    if template is None:
        return read_jsonl(job.source)
    csv.field_size_limit(MAX_CSV_VALUE)  # for the whole process, which is ours
    return read_csv(job.source, template, id_column=job.id_column)


def _template(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        sentence = f"{path}: cannot be read: {error.strerror}"
        raise Stop(sentence, USAGE) from error
    except (ValueError, RecursionError) as error:
        sentence = f"{path}: is no JSON object: {error}"
        raise Stop(sentence, USAGE) from error
    return found
