"""`openai-runs export` and `import`: threads taken from one server to another, whole."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from openai_runs import AuthenticationError, ConfigError, OpenAIRunsError
from openai_runs._cli.connecting import Place, check_ids, explained, reached
from openai_runs._cli.ending import ERROR, USAGE, Stop
from openai_runs._cli.interrupting import carry_out
from openai_runs._cli.outputs import print_text, printable, say
from openai_runs.archive import (
    ExportProgress,
    ExportReport,
    LoadProgress,
    LoadReport,
    export,
    load,
    write_responses,
)

__all__ = ["Export", "Import", "perform_export", "perform_import"]

_SHOWN: Final = 20
"""Lines of a list that is too long to read."""
_INTERVAL: Final = 30.0
"""Seconds between two lines of progress where nobody watches."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    out: Path
    threads: tuple[str, ...]
    threads_file: Path | None
    form: str | None
    place: Place


class Import(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    folder: Path
    dry_run: bool
    place: Place


def perform_export(given: Export) -> int:
    """Write everything into the folder; return the exit code.

    Raises:
        Stop: It cannot be done, or not now.
        Closed: Nobody reads the output.
    """
    _check(given.place)
    ids = _ids(given)
    return _explaining(partial(_export, given, ids), given.place, given.out)


def perform_import(given: Import) -> int:
    """Send the archive; return the exit code.

    Raises:
        Stop: It cannot be done, or not now.
        Closed: Nobody reads the output.
    """
    _check(given.place)
    return _explaining(partial(_import, given), given.place, None)


def _explaining(work: Callable[[], Awaitable[int]], place: Place, out: Path | None) -> int:
    """Return the exit code of the work, whose errors are said in a sentence.

    Args:
        work: What is to be done.
        place: The server.
        out: The folder of an export.

    Raises:
        Stop: It failed.
    """
    try:
        return carry_out(work)
    except AuthenticationError as error:
        sentence = f"the server refused the key: {explained(error, place)}{_again(out)}"
        raise Stop(sentence) from error
    except ConfigError as error:
        raise Stop(str(error)) from error
    except OpenAIRunsError as error:
        stop = explained(error, place)
        sentence = f"{stop}{_again(out) if stop.code == ERROR else ''}"
        raise Stop(sentence, stop.code) from error
    except OSError as error:
        sentence = f"{error.filename or 'a file'} cannot be written: {error.strerror}{_again(out)}"
        raise Stop(sentence) from error


def _again(folder: Path | None) -> str:
    """Return how to go on with an export into this folder; None: it was none."""
    done = 0 if folder is None else len(list((folder / "threads").glob("*.jsonl")))
    if not done:
        return ""
    return f"; {done} threads are whole in {str(folder)!r}: the same command goes on from there"


async def _export(given: Export, ids: list[str] | None) -> int:
    async with reached(given.place, at_work=False) as client:
        with _watching("exporting") as shown:

            def note(at: ExportProgress) -> None:
                words = f"{at.threads} threads, {at.unchanged} unchanged, {at.messages} messages"
                shown.update(at.threads, at.total, words)

            report = await export(client, given.out, threads=ids, on_progress=note)
    _describe_export(report)
    if given.form == "responses":
        made = await write_responses(given.out)
        print_text(printable(f"responses: {made.threads} threads, {made.items} items"))
        _list("not carried over", [f"{one.what} {one.id}: {one.why}" for one in made.left_out])
    return ERROR if report.failed else 0


async def _import(given: Import) -> int:
    async with reached(given.place, at_work=False, make=not given.dry_run) as client:
        with _watching("checking" if given.dry_run else "importing") as shown:

            def note(at: LoadProgress) -> None:
                shown.update(at.done, at.total, f"{at.done} of {at.total}")

            report = await load(client, given.folder, dry_run=given.dry_run, on_progress=note)
    _describe_import(report)
    return 0 if report.is_complete else ERROR


def _describe_export(report: ExportReport) -> None:
    counts = ", ".join(f"{number} {name}" for name, number in report.counts.items())
    print_text(printable(f"{report.folder}: {counts}"))
    print_text(f"{report.written} threads written, {report.unchanged} unchanged")
    _list("could not be exported", [f"{one.what} {one.id}: {one.why}" for one in report.failed])
    left = [one for one in report.left_out if one not in report.failed]
    _list(
        "not in the archive", [f"{one.what} {one.id}: {one.why}" for one in left], "left-out.jsonl"
    )


def _describe_import(report: LoadReport) -> None:
    counts = ", ".join(f"{number} {name}" for name, number in report.outcomes.items())
    print_text(f"{'nothing written (--dry-run): ' if report.dry_run else ''}{counts or 'nothing'}")
    print_text(f"{report.messages} messages, {report.runs} runs, {report.steps} steps added")
    _list(
        "changed nothing",
        [f"{one.object} {one.id}: {one.outcome}: {one.reason}" for one in report.rejected],
    )
    _list("were active, and are kept as expired", [f"run {each}" for each in report.ended])
    _list(
        "not kept by this server",
        [f"{name}, of {number}" for name, number in report.left_out.items()],
    )


def _list(title: str, lines: list[str], file: str = "") -> None:
    """Say a list on standard error, its beginning if it is long."""
    if not lines:
        return
    say(f"{title}: {len(lines)}{f' (all in {file})' if file else ''}", dim=False)
    for line in lines[:_SHOWN]:
        say(f"  {line}")
    if len(lines) > _SHOWN:
        say(f"  and {len(lines) - _SHOWN} more")


def _ids(given: Export) -> list[str] | None:
    """Return the threads that were named; None if none was.

    Raises:
        Stop: The file cannot be read, or names what can be no id.
    """
    ids = list(given.threads)
    if given.threads_file is not None:
        try:
            lines = given.threads_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            sentence = f"--threads-file {given.threads_file} cannot be read: {error}"
            raise Stop(sentence, USAGE) from error
        ids += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    elif not ids:
        return None
    for each in ids:
        check_ids(given.place, thread=each)
    return ids


class _Shown:
    """Progress: a bar on a terminal, else a line from time to time."""

    def __init__(self, title: str, progress: Progress | None) -> None:
        self._title = title
        self._progress = progress
        self._task = None if progress is None else progress.add_task("", total=None)
        self._at = time.monotonic()

    def update(self, done: int, total: int | None, words: str) -> None:
        """Show how far it is."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total, description=words)
        elif time.monotonic() - self._at >= _INTERVAL:
            self._at = time.monotonic()
            say(f"{self._title}: {words}", dim=False)


@contextmanager
def _watching(title: str) -> Iterator[_Shown]:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield _Shown(title, None)
        return
    columns = (
        TextColumn(title, markup=False),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Shown(title, progress)


def _check(place: Place) -> None:
    """Refuse options that name no server, or contradict each other.

    Raises:
        Stop: They do.
    """
    sentence = ""
    if place.db is None and place.url(os.environ) is None:
        sentence = (
            "which server? Set OPENAI_BASE_URL or pass --base-url, or --db for the file of a "
            "server of this package"
        )
    elif place.token_command is not None and place.api_key_env is not None:
        sentence = "--token-command and --api-key-env both give a key: use one"
    if sentence:
        raise Stop(sentence, USAGE)
