"""Figures as tables: min, median, max, and how many times the floor."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from tests.benchmarks.contestants import FLOOR
from tests.benchmarks.measuring import Figures

__all__ = ["METRICS", "ratio", "table"]

METRICS = {
    "cpu": "CPU",
    "requests": "requests a run",
    "memory": "memory a waiter",
    "task": "a task that awaits a future",
    "run": "a decoded Run",
    "p50": "p50",
    "p99": "p99",
    "seen": "runs seen finished",
    "wall": "wall time",
    "rss": "memory",
    "rate": "runs a second",
    "server_cpu": "CPU of the server a run",
}
"""Metric -> its name in tables."""
_SECONDS = ("cpu", "p50", "p99", "wall", "server_cpu")


def table(titles: dict[str, str], results: dict[str, Figures]) -> str:
    """Return one Markdown table of some rows' figures.

    Args:
        titles: Row's name -> its title.
        results: Row's name -> its figures.
    """
    head = ["work", "client", "figure", "min", "median", "max", "× floor"]
    lines = [head, ["---"] * 3 + ["---:"] * 4]
    for name, figures in results.items():
        for contestant, metrics in figures.items():
            for metric, values in metrics.items():
                told = [value for value in values if value is not None]
                if told:
                    shown = [_shown(metric, one) for one in _range(told)]
                    times = ratio(figures, contestant, metric)
                    cells = [titles[name], contestant, METRICS[metric], *shown]
                    lines.append([*cells, "" if times is None else f"{times:.2f}"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def ratio(figures: Figures, contestant: str, metric: str) -> float | None:
    """Return how many times the floor's figure this is: the median over the rounds."""
    floor = figures.get(FLOOR.name, {}).get(metric, [])
    own = figures[contestant][metric]
    pairs = [(a, b) for a, b in zip(own, floor, strict=False) if a is not None and b]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def _range(values: Iterable[float]) -> tuple[float, float, float]:
    told = sorted(values)
    return told[0], statistics.median(told), told[-1]


def _shown(metric: str, value: float) -> str:
    """Return a figure with its unit, to three digits."""
    if metric == "rss":
        return f"{value / 1024**2:.3g} MiB"
    if metric in ("memory", "task", "run"):
        return f"{value / 1024:.3g} KiB"
    if metric not in _SECONDS:
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"
