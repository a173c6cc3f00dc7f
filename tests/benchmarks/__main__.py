"""Benchmarks of openai_runs beside bare aiohttp and the official client.

Each row is one piece of work. A server has one core in a process of its own; each client
does the work in a fresh process on the other core, in turns with the rest, and their answers
are compared, so that nobody wins by skipping work. A cell of the tables is "**ratio** ·
median (min to max)". Compare figures of one run only: the ratio is the median, over the
rounds, of a client's figure by the baseline's in the same round. The baseline is tuned bare aiohttp
and msgspec. On a busy machine differences under about 1.3 need many rounds.

    poe bench                                all rows, as the page of the docs shows them
    poe bench --quick                        all rows, shorter, three rounds
    poe bench --only cpu waits-1000          a group of rows, and one row
    poe bench --only retrieve --against baseline ours --rounds 15
    poe bench --json FILE                    keep the figures of every round
    poe bench --only cpu --page              write them into the docs

The official client's environments are made under `.referees/` when they are first needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.benchmarks import page
from tests.benchmarks.contestants import prepare
from tests.benchmarks.machine import described
from tests.benchmarks.measuring import measure
from tests.benchmarks.page import Result, tables
from tests.benchmarks.rows import GROUPS, ROWS, Row

_ROUNDS = 5
_QUICK_ROUNDS = 3


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    lines = []
    for group, title in GROUPS.items():
        lines.append(f"\n  {group}: {title}")
        lines += [
            f"    {row.name:18}{row.shown(quick=False)}" for row in ROWS if row.group == group
        ]
    taken = argparse.ArgumentParser(
        prog="poe bench",
        description=__doc__,
        epilog="rows, by group:" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = ["baseline", "ours", "official"]
    taken.add_argument("--only", nargs="+", metavar="ROW", help="these rows or groups of them")
    taken.add_argument(
        "--against", nargs="+", choices=kinds, default=kinds, help="which clients (default: all)"
    )
    taken.add_argument("--rounds", type=int, help=f"default {_ROUNDS}; --quick: {_QUICK_ROUNDS}")
    taken.add_argument("--quick", action="store_true", help="fewer repetitions, shorter runs")
    taken.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    taken.add_argument("--page", action="store_true", help="write the tables into the docs")
    return taken


def main() -> None:
    """Measure the rows that are asked for, and print a table for each group."""
    taken = parser()
    asked = taken.parse_args()
    wanted = set(asked.only or GROUPS)
    rows = [row for row in ROWS if {row.name, row.group} & wanted]
    unknown = wanted - {row.name for row in rows} - {row.group for row in rows}
    if unknown:
        taken.error(f"no such row: {', '.join(sorted(unknown))}; see --help")
    if asked.page and (asked.quick or asked.against != parser().get_default("against")):
        taken.error("--page shows whole runs: without --quick and --against")
    prepare(one for row in rows for one in row.contestants if one.kind in asked.against)
    results = {row.name: _measured(row, asked) for row in rows}
    for title, figures in tables(results).items():
        print(f"\n{title}\n\n{figures}", end="")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))
    if asked.page:
        page.write({**page.kept(), **results})


def _measured(row: Row, asked: argparse.Namespace) -> Result:
    """Return what a row's rounds came to, and tell how it goes on standard error."""
    rounds = asked.rounds or (_QUICK_ROUNDS if asked.quick else row.rounds or _ROUNDS)
    contestants = [one for one in row.contestants if one.kind in asked.against]
    machine, began = described(), time.monotonic()
    figures = measure(row, contestants, rounds=rounds, quick=asked.quick)
    took = time.monotonic() - began
    print(f"{row.name}: {rounds} rounds, {took:.0f} s, load {machine['load']}", file=sys.stderr)
    title = row.shown(quick=asked.quick)
    return {"title": title, "rounds": rounds, "machine": machine, "figures": figures}


if __name__ == "__main__":
    main()
