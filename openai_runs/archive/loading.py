"""`load`: an archive, or threads that were saved one file each, into a server of ours.

Each thread is one request to `POST /import`, so that memory holds one of them, and each comes whole
or not at all. Sending it again does no harm: a load that was cut short is started again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import msgspec

from openai_runs import AsyncClient
from openai_runs.archive import folders
from openai_runs.archive.folders import ThreadLines, parse_object
from openai_runs.config import ARCHIVE_PATIENCE, RetryPolicy
from openai_runs.errors import APIStatusError, ConfigError
from openai_runs.types import ImportOutcome

__all__ = ["LoadProgress", "LoadReport", "load"]

_NO_IMPORT: Final = {404, 405}
_REJECTED: Final = {400, 413}


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a load is, after an assistant or a thread."""

    done: int
    total: int
    outcome: ImportOutcome


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a load."""

    dry_run: bool
    outcomes: dict[str, int]
    """How many assistants and threads are `created`, `extended`, `unchanged`, `conflict` and
    `invalid`."""
    messages: int
    """Messages that were added."""
    runs: int
    """Runs that were added."""
    steps: int
    """Run steps that were added."""
    rejected: list[ImportOutcome]
    """Those that changed nothing, with the reason."""
    ended: list[str]
    """Ids of runs that were active when they were exported; they are kept as `expired`."""
    left_out: dict[str, int]
    """Fields that the server does not keep, and in how many threads and assistants."""

    @property
    def is_complete(self) -> bool:
        """Return whether the server has everything."""
        return not self.rejected


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    """One request to come."""

    id: str
    object: str
    body: Callable[[], dict[str, Any]]
    """Reads it; blocking.

    Raises:
        ValueError: It cannot be read.
    """


async def load(
    client: AsyncClient,
    folder: str | Path,
    *,
    dry_run: bool = False,
    retry: RetryPolicy | None = None,
    on_progress: Callable[[LoadProgress], None] | None = None,
) -> LoadReport:
    """Send an archive to a server of ours, which keeps ids, order and times; return the result.

    What the server has with the same content is passed over, so a second time does no harm. What
    it has with other content under the same id is a conflict, and stays as it is.

    Args:
        client: Of a server of this package.
        folder: An archive of `export`; or a folder of files, or one file, that hold a thread each
            as `{"thread": {...}, "messages": [...], "runs": [{..., "steps": [...]}]}`.
        dry_run: Check everything, and write nothing.
        retry: How failed requests are repeated; None: each for up to `ARCHIVE_PATIENCE` seconds.
        on_progress: Called after each assistant and thread.

    Raises:
        ConfigError: The folder holds no archive, or the server takes no imports.
        APIError: The server cannot be reached, or refuses the key.

    Cancellation: what was sent is kept; the thread under way comes whole or not at all.
    """
    patient = client.with_options(retry=retry or RetryPolicy(patience=ARCHIVE_PATIENCE))
    items = await anyio.to_thread.run_sync(_items, Path(folder))
    await _check_server(client)
    tally = _Tally(dry_run=dry_run)
    for number, item in enumerate(items, 1):
        outcome = await _send(patient, item, dry_run=dry_run)
        tally.add(outcome)
        if on_progress is not None:
            on_progress(LoadProgress(done=number, total=len(items), outcome=outcome))
    return tally.report()


async def _check_server(client: AsyncClient) -> None:
    """See that the server takes imports, and learn what else it can do.

    Raises:
        ConfigError: It does not.
    """
    try:
        await client.request("GET", "/threads", query={"limit": 1})
    except APIStatusError as error:
        if error.status_code in _NO_IMPORT:
            raise _no_import() from error
        raise


def _no_import() -> ConfigError:
    message = (
        "this server takes no imports (POST /import): that is an extension of the server of "
        "openai_runs, `openai-runs serve`"
    )
    return ConfigError(message)


async def _send(client: AsyncClient, item: _Item, *, dry_run: bool) -> ImportOutcome:
    """Return what became of one assistant or thread."""
    try:
        body = await anyio.to_thread.run_sync(item.body)
        query = {"dry_run": dry_run or None}
        return await client.request("POST", "/import", json=body, query=query, into=ImportOutcome)
    except ValueError as error:
        if isinstance(error, ConfigError) and not isinstance(error, _DamagedError):
            raise
        reason = str(error)
    except APIStatusError as error:
        if error.status_code in _NO_IMPORT:
            raise _no_import() from error
        if error.status_code not in _REJECTED:
            raise
        reason = str(error)
    return ImportOutcome(id=item.id, object=item.object, outcome="invalid", reason=reason)


class _DamagedError(ConfigError):
    """A file is not what the manifest says."""


class _Tally:
    """Counts outcomes, and keeps those that changed nothing."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._outcomes: Counter[str] = Counter()
        self._added: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._rejected: list[ImportOutcome] = []
        self._ended: list[str] = []

    def add(self, outcome: ImportOutcome) -> None:
        self._outcomes[outcome.outcome] += 1
        for name in ("messages", "runs", "steps"):
            self._added[name] += getattr(outcome, name)
        self._left_out.update(outcome.left_out)
        self._ended += outcome.ended
        if not outcome.is_kept:
            self._rejected.append(outcome)

    def report(self) -> LoadReport:
        return LoadReport(
            dry_run=self._dry_run,
            outcomes=dict(sorted(self._outcomes.items())),
            messages=self._added["messages"],
            runs=self._added["runs"],
            steps=self._added["steps"],
            rejected=self._rejected,
            ended=self._ended,
            left_out=dict(self._left_out),
        )


def _items(folder: Path) -> list[_Item]:
    """Return what is to be sent, in order.

    Raises:
        ConfigError: There is nothing, or no whole archive.
    """
    if folder.is_file():
        return [_single(folder)]
    if not folder.is_dir():
        message = f"there is no folder {str(folder)!r}"
        raise ConfigError(message)
    is_archive = (folder / folders.MANIFEST).exists() or (folder / folders.THREADS).is_dir()
    if is_archive:
        return list(_archived(folder))
    found = [_single(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        message = f"{str(folder)!r} holds no archive, and no file of a thread (*.json)"
        raise ConfigError(message)
    return found


def _archived(folder: Path) -> Iterator[_Item]:
    """Yield what the manifest of an archive names.

    Raises:
        ConfigError: There is no manifest, or the file of assistants is damaged.
    """
    manifest = folders.read_manifest(folder)
    data = _checked(folder, manifest.assistants)
    for line in data.splitlines():
        assistant = parse_object(line)
        yield _Item(id=_id_of(assistant), object="assistant", body=partial(dict, assistant))
    for entry in manifest.threads:
        yield _Item(id=entry.id, object="thread", body=partial(_archived_thread, folder, entry))


def _id_of(line: dict[str, Any]) -> str:
    assistant = line.get("assistant")
    return str(assistant.get("id", "")) if isinstance(assistant, dict) else ""


def _archived_thread(folder: Path, entry: folders.ThreadEntry) -> dict[str, Any]:
    return _body(folders.decode_thread(_checked(folder, entry)))


def _checked(folder: Path, entry: folders.FileEntry) -> bytes:
    """Return the contents of the file, if they are what the manifest says.

    Raises:
        ConfigError: They are not.
    """
    data = folders.read_if_there(folder / entry.file)
    if data is None or folders.digest(data) != entry.sha256:
        problem = "is not there" if data is None else "is not what the manifest says"
        message = f"{entry.file} {problem}: export again"
        raise _DamagedError(message)
    return data


def _body(lines: ThreadLines) -> dict[str, Any]:
    """Return the thread as `POST /import` takes it."""
    return {
        "thread": parse_object(lines.thread),
        "messages": [parse_object(message) for message in lines.messages],
        "runs": [
            {**parse_object(run.run), "steps": [parse_object(step) for step in run.steps]}
            for run in lines.runs
        ],
    }


def _single(path: Path) -> _Item:
    """Return the thread that was saved as one file."""

    def read() -> dict[str, Any]:
        body = parse_object(path.read_bytes())
        for name in ("messages", "runs"):
            body[name] = _oldest_first(body, name)
        for run in body["runs"]:
            run["steps"] = _oldest_first(run, "steps")
        return body

    return _Item(id=path.stem, object="thread", body=read)


def _oldest_first(holder: dict[str, Any], name: str) -> list[Any]:
    """Return a list in the order of creation: lists of this API come newest first by default.

    >>> runs = [{"id": "b", "created_at": 2}, {"id": "a", "created_at": 1}]
    >>> _oldest_first({"runs": runs}, "runs")
    [{'id': 'a', 'created_at': 1}, {'id': 'b', 'created_at': 2}]

    Raises:
        ValueError: It is no list of objects.
    """
    items = holder.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        message = f"`{name}` is no list of objects"
        raise ValueError(message)
    times = [_created_at(item) for item in items]
    if times == sorted(times):  # as it is, where all are of one second
        return items
    backwards = items[::-1]  # the order within one second
    return sorted(backwards, key=_created_at)


def _created_at(item: dict[str, Any]) -> float:
    time = item.get("created_at")
    return time if isinstance(time, int | float) else 0
