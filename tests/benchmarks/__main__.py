"""Benchmarks of openai_runs beside bare aiohttp and the official client.

Each row is one piece of work. A server has one core in a process of its own; each client
does the work in a fresh process on the other core, in turns with the rest, and their answers
are compared, so that nobody wins by skipping work. Compare figures of one run only:
"× floor" is the median, over the rounds, of a client's figure by the floor's figure in the
same round. The floor is tuned bare aiohttp and msgspec. On a busy machine differences under
about 1.3 need many rounds.

    poe bench                                all rows, as the page of the docs shows them
    poe bench --quick                        all rows, shorter, three rounds
    poe bench --only retrieve --only create  two rows
    poe bench --only retrieve --against floor ours --rounds 15
    poe bench --json FILE                    keep the figures of every round

The official client's environments are made under `.referees/` when they are first needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tests.benchmarks.contestants import prepare
from tests.benchmarks.machine import described
from tests.benchmarks.measuring import Figures, measure
from tests.benchmarks.report import table
from tests.benchmarks.rows import GROUPS, ROWS, Row

_ROUNDS = 5
_QUICK_ROUNDS = 3


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    names = "\n".join(f"  {row.name:18}{row.title}" for row in ROWS)
    taken = argparse.ArgumentParser(
        prog="poe bench",
        description=__doc__,
        epilog=f"rows:\n{names}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    taken.add_argument("--only", action="append", metavar="ROW", help="this row; may be repeated")
    taken.add_argument(
        "--against",
        nargs="+",
        choices=["floor", "ours", "official"],
        default=["floor", "ours", "official"],
        help="which clients (default: all)",
    )
    taken.add_argument("--rounds", type=int, help=f"default {_ROUNDS}; --quick: {_QUICK_ROUNDS}")
    taken.add_argument("--quick", action="store_true", help="fewer repetitions, shorter runs")
    taken.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    return taken


def main() -> None:
    """Measure the rows that are asked for, and print a table for each group."""
    taken = parser()
    asked = taken.parse_args()
    unknown = set(asked.only or ()) - {row.name for row in ROWS}
    if unknown:
        taken.error(f"no such row: {', '.join(sorted(unknown))}; see --help")
    rows = [row for row in ROWS if asked.only is None or row.name in asked.only]
    chosen = {
        row.name: [one for one in row.contestants if one.kind in asked.against] for row in rows
    }
    prepare(one for some in chosen.values() for one in some)
    machine = described()
    print(*(f"{name}: {text}" for name, text in machine.items()), sep="\n", file=sys.stderr)
    results: dict[str, Figures] = {}
    for row in rows:
        began = time.monotonic()
        rounds = asked.rounds or (_QUICK_ROUNDS if asked.quick else row.rounds or _ROUNDS)
        results[row.name] = measure(row, chosen[row.name], rounds=rounds, quick=asked.quick)
        print(f"{row.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    _show(rows, results)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": machine, "rows": results}, indent=1))


def _show(rows: list[Row], results: dict[str, Figures]) -> None:
    titles = {row.name: row.title for row in rows}
    for group, title in GROUPS.items():
        some = {row.name: results[row.name] for row in rows if row.group == group}
        if some:
            print(f"\n{title}\n\n{table(titles, some)}", end="")


if __name__ == "__main__":
    main()
