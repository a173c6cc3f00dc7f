"""The table beside the verdict: this time, and the sum over all times that were kept."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Final

from tests.chaos.looking import Found, Takeovers

__all__ = ["TABLE", "write_table"]

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = ROOT / "build" / "chaos" / "table.md"
_KEPT: Final = ROOT / "docs" / "results" / "chaos.md"
_ROW: Final = re.compile(r"\| ([a-z -]+) \| \d+ \| (\d+) \|")


def sums_in(text: str) -> Counter[str]:
    """Return the sums of an earlier page.

    >>> sums_in("| kills | 40 | 120 |")
    Counter({'kills': 120})
    """
    return Counter({name: int(total) for name, total in _ROW.findall(text)})


def write_table(*, faults: Counter[str], found: Found, wrong: int, takeovers: Takeovers) -> None:
    """Write the figures of this time, and of all times."""
    now: dict[str, int] = {f"{name}s": number for name, number in sorted(faults.items())}
    for name in ("lost", "doubled", "stuck", "failed", "garbled", "given_up"):
        now[name.replace("_", " ")] = len(getattr(found, name))
    now |= {"times": 1, "runs": found.runs, "wrong answers": wrong}
    now["runs taken over"] = len(takeovers.seconds) + len(takeovers.disturbed)
    before = sums_in(_KEPT.read_text()) if _KEPT.exists() else Counter[str]()
    names = dict.fromkeys([*now, *before])
    rows = [
        f"| {name} | {now.get(name, 0)} | {before[name] + now.get(name, 0)} |" for name in names
    ]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(["| | this time | all times |", "| --- | ---: | ---: |", *rows, ""]))
