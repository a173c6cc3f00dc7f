"""Figures as tables: min, median, max, and how many times the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from tests.benchmarks.contestants import BASELINE
from tests.benchmarks.measuring import Figures

__all__ = ["METRICS", "ratio", "table"]

METRICS = {
    "cpu": "CPU",
    "requests": "requests a run",
    "memory": "memory a waiter",
    "task": "a task that awaits a future",
    "run": "a decoded Run",
    "results": "results that are whole",
    "twice": "runs started twice",
    "refused": "429s",
    "raised": "waits that raised",
    "refused_share": "requests refused with 429, %",
    "failed_share": "requests lost or answered 503, %",
    "lag": "event loop held up, at most",
    "busy": "- by its own work (CPU), at most",
    "took": "wall time",
    "left": "tasks left behind",
    "late_p50": "completion to return, p50",
    "late_p99": "completion to return, p99",
    "p50": "p50",
    "p99": "p99",
    "seen": "runs seen finished",
    "wall": "wall time",
    "rss": "memory",
    "rate": "runs a second",
    "server_cpu": "CPU of the server a run",
}
"""Metric -> its name in tables."""
_SECONDS = (
    "cpu",
    "late_p50",
    "late_p99",
    "p50",
    "p99",
    "wall",
    "server_cpu",
    "lag",
    "busy",
    "took",
)
_COUNTS = ("seen", "raised")
"""What is not compared with the baseline's."""


def table(results: Mapping[str, Figures]) -> str:
    """Return a Markdown table of some rows' figures, one column for each client.

    A cell says how many times the baseline's figure it is, the median, and the range.

    Args:
        results: Row's title -> its figures.
    """
    contestants = list(dict.fromkeys(name for figures in results.values() for name in figures))
    head = ["work", "figure", *contestants]
    lines = [head, ["---"] * len(head)]
    for title, figures in results.items():
        metrics = dict.fromkeys(metric for told in figures.values() for metric in told)
        lines += [
            [title, METRICS[metric], *(_cell(figures, name, metric) for name in contestants)]
            for metric in metrics
        ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(figures: Figures, contestant: str, metric: str) -> str:
    told = [value for value in figures.get(contestant, {}).get(metric, []) if value is not None]
    if not told:
        return "-"
    shown = _shown(metric, statistics.median(told))
    if min(told) != max(told):
        shown += f" ({_shown(metric, min(told))} to {_shown(metric, max(told))})"
    is_compared = contestant != BASELINE.name and metric not in _COUNTS
    times = ratio(figures, contestant, metric) if is_compared else None
    return shown if times is None else f"**{times:.2f}** · {shown}"


def ratio(figures: Figures, contestant: str, metric: str) -> float | None:
    """Return how many times the baseline's figure this is: the median over the rounds."""
    baseline = figures.get(BASELINE.name, {}).get(metric, [])
    own = figures[contestant][metric]
    pairs = [(a, b) for a, b in zip(own, baseline, strict=False) if a is not None and b]
    return statistics.median(a / b for a, b in pairs) if pairs else None


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
