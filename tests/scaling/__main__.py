"""One process and several, on SQLite and PostgreSQL: runs a second, and how late others see it.

Not part of the test suite, since it measures: `poe long scaling` runs it and keeps its figures in
`docs/results/scaling.md`. Every figure has its peer in the same run, as the machine may be busy:

- runs a second, by 50 callers of bare aiohttp, of one process on SQLite, and of one, two and four
  on PostgreSQL, each of which serves and executes;
- from the last byte of a model's answer to the end of a held poll and of a stream: 1,000 of each
  at once, of one process that does all, and of one that serves while another executes.

WAL and what is stored are those of one run, on PostgreSQL.

    python -m tests.scaling                 all of it
    python -m tests.scaling --quick         shorter
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import aiohttp
import anyio
import psycopg

from tests.scaling.lateness import Lateness, measure_lateness
from tests.scaling.processes import Postgres, Processes

TABLE = Path(__file__).resolve().parents[2] / "build" / "scaling.md"
_CALLERS = 50
_CONFIGURATIONS = (("SQLite", 1), ("PostgreSQL", 1), ("PostgreSQL", 2), ("PostgreSQL", 4))


class Rate(NamedTuple):
    """Runs a second of one configuration, in each round, and what they cost."""

    database: str
    processes: int
    rounds: list[float]
    wal: int
    """Bytes of write-ahead log for a run; 0: not measured."""
    stored: int
    """Bytes of tables and indexes for a run."""
    connections: int


async def call(session: aiohttp.ClientSession, url: str, assistant: str, until: float) -> int:
    """Create runs, one after the other, and wait for each; return how many."""
    done = 0
    body = {
        "assistant_id": assistant,
        "thread": {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    }
    while time.monotonic() < until:
        async with session.post(f"{url}/threads/runs", json=body) as answer:
            run = await answer.json()
            assert answer.status == 200, run
        path = f"{url}/threads/{run['thread_id']}/runs/{run['id']}"
        while run["status"] != "completed":
            assert run["status"] in {"queued", "in_progress"}, run
            async with session.get(path, headers={"Prefer": "wait=30"}) as answer:
                run = await answer.json()
        done += 1
    return done


async def make_assistant(session: aiohttp.ClientSession, url: str) -> str:
    """Return the id of a new assistant."""
    async with session.post(f"{url}/assistants", json={"model": "echo"}) as answer:
        return str((await answer.json())["id"])


async def measure_rate(urls: list[str], seconds: float) -> tuple[float, int]:
    """Return the runs a second, and how many there were."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        assistant = await make_assistant(session, urls[0])
        begun = time.monotonic()
        counts = [0] * _CALLERS

        async def one(number: int) -> None:
            url = urls[number % len(urls)]
            counts[number] = await call(session, url, assistant, begun + seconds)

        async with anyio.create_task_group() as group:
            for number in range(_CALLERS):
                group.start_soon(one, number)
        return sum(counts) / (time.monotonic() - begun), sum(counts)


def state_of(url: str) -> tuple[int, int, int]:
    """Return the database's position in its log, its size, and its connections."""
    with psycopg.connect(url) as connection:
        row: Any = connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,"
            " pg_database_size(current_database()),"
            " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())"
        ).fetchone()
    return int(row[0]), int(row[1]), int(row[2]) - 1


async def measure_rates(
    folder: Path, postgres: Postgres, rounds: int, seconds: float
) -> list[Rate]:
    """Return the rates of all configurations, which take turns."""
    found = {each: Rate(*each, [], 0, 0, 0) for each in _CONFIGURATIONS}
    for turn in range(rounds):
        for database, number in _CONFIGURATIONS:
            shared = database == "PostgreSQL"
            db = postgres.make_database() if shared else str(folder / f"runs-{turn}.db")
            async with Processes() as processes:
                urls = [await processes.serve(db) for _ in range(number)]
                await measure_rate(urls, 1.0)
                before = state_of(db) if shared else (0, 0, 0)
                rate, count = await measure_rate(urls, seconds)
                after = state_of(db) if shared else (0, 0, 0)
            place = (database, number)
            wal, stored = (
                (new - old) // count for new, old in zip(after[:2], before, strict=False)
            )
            rounds_so_far = [*found[place].rounds, rate]
            found[place] = Rate(database, number, rounds_so_far, wal, stored, after[2])
            print(f"  {database}, {number} processes: {rate:.0f} runs/s", flush=True)
    return list(found.values())


def show_rates(rates: list[Rate]) -> list[str]:
    """Return the table of the rates."""
    lines = [
        "| database | processes | runs/s (min to max) | of SQLite's | WAL | stored | connections |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    base = rates[0].rounds
    for rate in rates:
        ratio = statistics.median(a / b for a, b in zip(rate.rounds, base, strict=True))
        lines.append(
            f"| {rate.database} | {rate.processes} | {statistics.median(rate.rounds):.0f} "
            f"({min(rate.rounds):.0f} to {max(rate.rounds):.0f}) | {ratio:.2f} "
            f"| {rate.wal / 1000:.1f} kB | {rate.stored / 1000:.1f} kB | {rate.connections} |"
        )
    return lines


def show_lateness(late: list[tuple[str, Lateness]]) -> list[str]:
    """Return the table of how late the end of a run is seen."""
    lines = [
        "| who | held poll p50 | p99 | stream p50 | p99 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, one in late:
        cells = " | ".join(f"{1000 * value:.0f} ms" for value in one.figures)
        lines.append(f"| {name} | {cells} |")
    for name, one in late[1:]:
        ratios = (a / b for a, b in zip(one.figures, late[0][1].figures, strict=True))
        lines.append(f"| {name}, of one process | " + " | ".join(f"{r:.2f}" for r in ratios) + " |")
    return lines


async def main() -> None:
    """Measure, and print the tables; the last line sums up."""
    taken = argparse.ArgumentParser(prog="python -m tests.scaling", description=__doc__)
    taken.add_argument("--quick", action="store_true", help="shorter")
    asked = taken.parse_args()
    rounds, seconds, held = (1, 3.0, 200) if asked.quick else (3, 8.0, 1000)
    with TemporaryDirectory() as folder, Postgres(Path(folder, "postgres")) as postgres:
        rates = await measure_rates(Path(folder), postgres, rounds, seconds)
        late = [
            ("one process", await measure_lateness(postgres.make_database(), held, apart=False)),
            (
                "served and executed apart",
                await measure_lateness(postgres.make_database(), held, apart=True),
            ),
        ]
    tables = "\n".join([*show_rates(rates), "", *show_lateness(late)])
    print(f"\n{tables}\n")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(tables + "\n", encoding="utf-8")
    best = max(rates[1:], key=lambda rate: statistics.median(rate.rounds))
    worst = max(a / b for a, b in zip(late[1][1].figures, late[0][1].figures, strict=True))
    print(
        f"scaling: {statistics.median(rates[0].rounds):.0f} runs/s with one process on SQLite, "
        f"{statistics.median(best.rounds):.0f} with {best.processes} on {best.database}; ends seen "
        f"by another process at most {worst:.2f} times as late"
    )


if __name__ == "__main__":
    sys.exit(anyio.run(main))
