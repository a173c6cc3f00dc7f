"""The soak: a server and a client for an hour, with faults on both sides; what grows meanwhile.

    python -m tests.soak --minutes 60 --rate 15

Samples go to `build/soak/samples.jsonl` as they are taken. The last line printed is the verdict;
the table of slopes stands before it, and in `build/soak/table.md`,
which is kept up to date, so that a soak that was interrupted tells something too.
"""

from __future__ import annotations

import argparse
import select
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.soak.slopes import Limit, Row, judge, table

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "build" / "soak"
"""Where it writes; a database belongs on a disk, and not in memory."""
MB: Final = 1 << 20

INTERVAL: Final = 10.0
"""Seconds between two samples."""
WARM_UP: Final = 1 / 4
"""Share of the time that is left out; what is bounded is filled by then."""
SHORTEST: Final = 600.0
"""Seconds below which nothing is said of what grows."""
LEFT_OVER: Final = 60.0
"""Seconds after which a thread is deleted here whose create the client has lost sight of."""
PATIENCE: Final = 60.0
"""Seconds a process may take to say how it is."""
TABLES: Final = (
    "threads", "messages", "runs", "steps", "events", "run_shared_json", "shared_json",
    "idempotency",
)  # fmt: skip
OF_THREADS: Final = TABLES[:6]
"""Tables whose rows go with their thread."""
_SPREAD: Final = 8 * MB
"""What the memory of a process may grow by in the first hour while what is in use does not.

Malloc keeps what was freed between other parts, more and more slowly: over 19,500 runs on threads
that come and go, 16.6 MB stayed in use, and 2.0 MB of free space became 3.8 after 9,000 of them
and 4.5 at the end. So the heap in use is judged more strictly.
"""
LIMITS: Final = [
    *(
        limit
        for side in ("server", "client")
        for limit in (
            Limit(f"{side} rss", _SPREAD, 2 * MB, MB, "MB"),
            Limit(f"{side} uss", _SPREAD, 2 * MB, MB, "MB"),
            Limit(f"{side} heap", 2 * MB, 1 * MB, MB, "MB"),
            Limit(f"{side} blocks", 20_000, 10_000, 1000, "thousand"),
            Limit(f"{side} objects", 20_000, 8_000, 1000, "thousand"),
            Limit(f"{side} descriptors", 5, 12),
            Limit(f"{side} threads", 1, 1),
            Limit(f"{side} tasks", 10, 20),
        )
    ),
    Limit("database", 2 * MB, 2 * MB, MB, "MB"),
    Limit("database used", 2 * MB, 2 * MB, MB, "MB"),
    Limit("wal", 4 * MB, 2 * MB, MB, "MB"),
    Limit("rows", 500, 1500),
    Limit("log per run", 10, 5, 1, "bytes"),
]


class Child:
    """A process of the soak."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        """Start it; what it prints to standard error goes into a file."""
        self.name = name
        self.hangs = False
        """Whether it had to be killed in the end."""
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"tests.soak.{name}", *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def ask(self, line: str) -> str:
        """Send a line, and return the line that comes back."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        return self.read()

    def read(self) -> str:
        """Return the next line.

        Raises:
            RuntimeError: The process ended, or says nothing.
        """
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            message = f"the {self.name} {'ended' if ready else 'hangs'}: see {self.log}"
            raise RuntimeError(message)
        return line.decode().strip()

    def end(self) -> None:
        """Close its standard input, and wait until it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.hangs = True
            self.process.kill()
            self.process.wait()


class Soak:
    """The processes, and what was seen of them."""

    def __init__(self, stack: ExitStack, folder: Path, rate: float, seed: int) -> None:
        """Start the processes; they write into this folder."""
        self.folder = folder
        self._database = folder / "runs.db"
        self.faults = self._start(stack, "faults", str(seed))
        model = self.faults.read()
        self.server = self._start(stack, "server", str(self._database), model)
        self._url = self.server.read()
        port = self.faults.ask(self._url.rpartition(":")[2].removesuffix("/v1"))
        self.client = self._start(
            stack, "client", f"http://127.0.0.1:{port}/v1", str(rate), str(seed)
        )
        self.client.read()
        self.samples: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {}
        self._seen: list[tuple[float, int]] = []
        self._began = time.monotonic()

    def _start(self, stack: ExitStack, name: str, *arguments: str) -> Child:
        child = Child(self.folder, name, *arguments)
        stack.callback(child.end)
        return child

    @property
    def seconds(self) -> float:
        """Return how long it has lasted."""
        return time.monotonic() - self._began

    def sample(self) -> dict[str, float]:
        """Take a sample, and keep it."""
        found: dict[str, float] = {"at": self.seconds}
        for child in (self.server, self.client):
            told = msgspec.json.decode(child.ask("figures"))
            if child is self.client:
                self.facts = told
            numbers = {k: v for k, v in told.items() if isinstance(v, int | float)}
            found |= {f"{child.name} {name}": value for name, value in numbers.items()}
        found |= self._files()
        self.samples.append(found)
        with (self.folder / "samples.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")
        return found

    def _files(self) -> dict[str, float]:
        wal = Path(f"{self._database}-wal")
        with self._reader() as connection:
            counts = {
                f"rows {name}": _number(connection, f"SELECT count(*) FROM {name}")
                for name in TABLES
            }
            runs = _number(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'runs'")
            pages = _number(connection, "PRAGMA page_count")
            free = _number(connection, "PRAGMA freelist_count")
            size = _number(connection, "PRAGMA page_size")
        log = self.server.log.stat().st_size
        return {
            "database": self._database.stat().st_size,
            "database used": (pages - free) * size,
            "wal": wal.stat().st_size if wal.exists() else 0,
            "log": log,
            "log per run": log / max(1, runs),
            "runs": runs,
            "rows": sum(counts.values()),
            **counts,
        }

    def _reader(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=30))

    def sweep(self, age: float = LEFT_OVER) -> int:
        """Delete the threads that were there so long ago; return how many."""
        with self._reader() as connection:
            newest = _number(connection, "SELECT coalesce(max(seq), 0) FROM threads")
            self._seen.append((self.seconds, newest))
            old = [seq for at, seq in self._seen if at <= self.seconds - age]
            self._seen = [one for one in self._seen if not old or one[1] >= old[-1]]
            if not old:
                return 0
            found = connection.execute("SELECT id FROM threads WHERE seq <= ?", (old[-1],))
            ids = [str(id_) for (id_,) in found]
        for id_ in ids:
            request = urllib.request.Request(
                f"{self._url}/threads/{id_}", method="DELETE", headers=_HEADERS
            )
            # The client was faster, or the server is busy: the next sweep deletes it.
            with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
        return len(ids)

    def write_table(self) -> str:
        """Write what came of each figure so far into a file, and return it."""
        text = table(rows_of(self.samples))
        (self.folder / "table.md").write_text(text)
        return text

    def left(self) -> dict[str, int]:
        """Return how many rows are left in tables whose rows go with their thread, if any."""
        with self._reader() as connection:
            counts = {
                name: _number(connection, f"SELECT count(*) FROM {name}") for name in OF_THREADS
            }
        return {name: number for name, number in counts.items() if number}


_HEADERS: Final = {"openai-beta": "assistants=v2"}


def _number(connection: sqlite3.Connection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def rows_of(samples: list[dict[str, float]]) -> list[Row]:
    """Return what came of each figure, the warm-up left out."""
    began = samples[-1]["at"] * WARM_UP
    taken = [one for one in samples if one["at"] >= began]
    return [judge(limit, [(one["at"], one[limit.figure]) for one in taken]) for limit in LIMITS]


def progress(soak: Soak) -> str:
    """Return a line about the last sample."""
    last = soak.samples[-1]
    sides = ", ".join(
        f"{side} {last[f'{side} rss'] / MB:.1f} MB, {last[f'{side} blocks'] / 1000:.0f}k blocks, "
        f"{last[f'{side} descriptors']:.0f} fds, {last[f'{side} tasks']:.0f} tasks"
        for side in ("server", "client")
    )
    return (
        f"{last['at'] / 60:5.1f} min: {last['runs']:.0f} runs, {sides}, database "
        f"{last['database'] / MB:.1f} MB, {last['rows']:.0f} rows, wal {last['wal'] / MB:.1f} MB"
    )


def grown(before: dict[str, int], after: dict[str, int], shown: int = 12) -> list[str]:
    """Return the types of which there are more objects than before, those that grew most first."""
    more = {name: number - before.get(name, 0) for name, number in after.items()}
    return [f"{number:+} {name}" for name, number in sorted(more.items(), key=lambda one: -one[1])][
        :shown
    ]


def watch(soak: Soak, seconds: float, interval: float) -> list[str]:
    """Take samples until the time is up; return the types that grew, by side."""
    before: dict[str, dict[str, int]] = {}
    shown = 0.0
    while soak.seconds < seconds:
        soak.sample()
        soak.sweep()
        if soak.seconds >= shown:
            print(progress(soak), flush=True)
            soak.write_table()
            shown += 60
        if not before and soak.seconds >= seconds * WARM_UP:
            for child in (soak.server, soak.client):
                before[child.name] = msgspec.json.decode(child.ask("types"))
        time.sleep(max(0.0, min(interval, seconds - soak.seconds)))
    soak.sample()
    lines = []
    for child in (soak.server, soak.client):
        after = msgspec.json.decode(child.ask("types"))
        lines.append(f"{child.name}: {', '.join(grown(before.get(child.name, {}), after))}")
    return lines


def soaked(given: argparse.Namespace, folder: Path) -> int:
    """Run the soak, and print what came of it; return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with ExitStack() as stack:
        soak = Soak(stack, folder, given.rate, given.seed)
        lines = watch(soak, given.minutes * 60, given.interval)
        faults = soak.faults.ask("faults")
        soak.client.end()
        ended = soak.seconds
        while soak.sweep(age=0) and soak.seconds < ended + PATIENCE:
            pass
        trouble = [f"{number} rows of {name} are left" for name, number in soak.left().items()]
    trouble += [
        f"the {child.name} does not end" for child in (soak.server, soak.client) if child.hangs
    ]
    print("types of which there are more", *lines, sep="\n  ")
    print("faults", faults, sep="\n  ")
    print("ends", msgspec.json.encode(soak.facts["ends"]).decode(), sep="\n  ")
    print(soak.write_table())
    code, line = verdict(soak.samples, trouble)
    print(line)
    return code


def verdict(samples: list[dict[str, float]], trouble: list[str]) -> tuple[int, str]:
    """Return the exit code, and the line that says what came of it.

    Args:
        samples: All of them.
        trouble: What went wrong besides.
    """
    rows, last = rows_of(samples), samples[-1]
    slopes = {row.limit.figure: row.slope / MB for row in rows}
    is_long = last["at"] >= SHORTEST
    bad = [f"{row.limit.figure} grows" for row in rows if is_long and not row.holds]
    bad += trouble
    if last["client foreign"]:
        bad.append(f"{last['client foreign']:.0f} foreign exceptions")
    good = "nothing grows" if is_long else "too short to judge what grows"
    words = (
        f"soak: {last['runs']:.0f} runs and {last['client calls']:.0f} calls in "
        f"{last['at'] / 60:.0f} min, USS of the server {slopes['server uss']:+.1f} MB/h, of the "
        f"client {slopes['client uss']:+.1f} MB/h; {', '.join(bad) or good}"
    )
    return (1 if bad else 0), words


def main() -> int:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=15.0, help="calls begun in a second")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--interval", type=float, default=INTERVAL, help="seconds of a sample")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="emptied first")
    given = parser.parse_args()
    return soaked(given, given.folder)


if __name__ == "__main__":
    sys.exit(main())
