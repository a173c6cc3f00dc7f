"""The page of the docs that shows the figures, and the file that keeps them.

The page marks a table with `<!-- measured: GROUP -->` and `<!-- end -->`. A run of some rows
renews those rows and leaves the others as they were measured before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias, TypedDict

from tests.benchmarks.measuring import Figures
from tests.benchmarks.report import table
from tests.benchmarks.rows import GROUPS, ROWS

__all__ = ["PAGE", "Result", "Results", "kept", "rendered", "tables", "write"]

_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "pages" / "explain" / "benchmarks.md"
_KEPT = Path(__file__).resolve().with_name("results.json")
_PART = re.compile(
    r"(?P<begin><!-- measured: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


class Result(TypedDict):
    """What one row came to."""

    title: str
    rounds: int
    machine: dict[str, str]
    """See `machine.described`, at its beginning."""
    figures: Figures


Results: TypeAlias = dict[str, Result]
"""By the row's name."""


def kept() -> Results:
    """Return what was measured for the page before."""
    if not _KEPT.exists():
        return {}
    results: Results = json.loads(_KEPT.read_text())
    return results


def tables(results: Results) -> dict[str, str]:
    """Return a table for each group that was measured, by its title."""
    found = {}
    for group, title in GROUPS.items():
        some = _of_group(group, results)
        if some:
            found[title] = table({one["title"]: one["figures"] for one in some.values()})
    return found


def write(results: Results) -> None:
    """Keep the figures, and show them on the page."""
    _KEPT.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(rendered(results))


def rendered(results: Results) -> str:
    """Return the page with these figures."""

    def renewed(found: re.Match[str]) -> str:
        return f"{found['begin']}\n{_part(found['name'], results)}\n{found['end']}"

    return _PART.sub(renewed, PAGE.read_text())


def _part(name: str, results: Results) -> str:
    if name == "machine":
        facts = ("processor", "system", "Python", "packages")
        told = {key: {one["machine"][key] for one in results.values()} for key in facts}
        return "".join(f"- {key}: {'; '.join(sorted(values))}\n" for key, values in told.items())
    some = _of_group(name, results)
    if not some:
        return f"```sh\npoe bench --only {name}\n```\n"
    shown = table({one["title"]: one["figures"] for one in some.values()})
    return f"```sh\npoe bench --only {name}\n```\n\n{shown}\n{_measured(some)}\n"


def _measured(results: Mapping[str, Result]) -> str:
    """Return when and under which load these rows were measured."""
    machines = [one["machine"] for one in results.values()]
    days = sorted({f"{machine['day']} at {machine['commit']}" for machine in machines})
    loads = sorted(float(machine["load"]) for machine in machines)
    rounds = sorted({one["rounds"] for one in results.values()})
    return (
        f"Measured on {', '.join(days)}; rounds: {', '.join(map(str, rounds))}; "
        f"load of the machine before each row: {loads[0]} to {loads[-1]}."
    )


def _of_group(group: str, results: Mapping[str, Result]) -> Results:
    return {
        row.name: results[row.name] for row in ROWS if row.group == group and row.name in results
    }
