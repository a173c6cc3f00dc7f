"""How far many runs have come, as numbers and in one line."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from openai_runs._client.flows.results import RunResult
from openai_runs.errors import APIStatusError, OpenAIRunsError, RunError
from openai_runs.types.runs import Run, RunStatus

__all__ = ["Progress"]

_HOUR = 3600.0
_MINUTE = 60.0
_RECENT = 20
"""Ended items that the rate is made of at least, so that slow runs have one."""


class Progress:
    """How far many runs have come; made by `runs.map` and `openai_runs.batch`.

    `str(progress)` is one line for a log. It has `total`, `earlier`, `running`, `completed`,
    `failed`, `done`, `tokens`, `reasons`, `seconds`, `rate` and `seconds_left`.
    """

    def __init__(
        self, total: int | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        """Items in all; None where that is not known."""
        self.earlier = 0
        """Items that were done before this start."""
        self.running = 0
        """Items in progress."""
        self.completed = 0
        """Items whose run completed since the start."""
        self.tokens = 0
        """Tokens used since the start."""
        self.reasons: Counter[str] = Counter()
        """Items that failed since the start, by reason: a status, an error code, or an error's
        class."""
        self._monotonic = monotonic
        self._began = monotonic()
        self._marks = deque([(self._began, 0)])
        """Times, a second apart or more, with the items that had ended since the start."""

    @property
    def failed(self) -> int:
        """Return how many items failed since the start."""
        return self.reasons.total()

    @property
    def done(self) -> int:
        """Return how many items have an outcome, those of earlier starts included."""
        return self.earlier + self.completed + self.failed

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._monotonic() - self._began

    @property
    def rate(self) -> float:
        """Return the items done per second: in the last minute, or for the last 20 if longer."""
        now, ended, marks = self._monotonic(), self.completed + self.failed, self._marks
        while len(marks) > 1 and marks[1][0] <= now - _MINUTE and marks[1][1] <= ended - _RECENT:
            marks.popleft()
        return (ended - marks[0][1]) / max(now - marks[0][0], 0.001)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds until all items are done, at the present rate; None: not known."""
        rate = self.rate
        if self.total is None or not rate:
            return None
        return max(self.total - self.done, 0) / rate

    def add(self, outcome: RunResult | OpenAIRunsError) -> str | None:
        """Count the outcome of an item; return the reason if it failed.

        Args:
            outcome: The item's result, or the error that ended it.
        """
        if isinstance(outcome, RunResult) and outcome.usage is not None:
            self.tokens += outcome.usage.total_tokens
        reason = _reason(outcome)
        if reason is None:
            self.completed += 1
        else:
            self.reasons[reason] += 1
        now = self._monotonic()
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.completed + self.failed))
        return reason

    def __str__(self) -> str:
        """Return it in one line."""
        of_total = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{self.done:,}{of_total} done"]
        if self.running:
            parts.append(f"{self.running} running")
        parts += self._of_this_start(self.rate)
        left = self.seconds_left
        if left and self.running:
            parts.append(f"{_spoken(left)} left")
        return ", ".join(parts)

    def summary(self) -> str:
        """Return what was done since the start in one line, earlier starts apart; "" if nothing."""
        ended = self.completed + self.failed
        rate = ended / max(self.seconds, 0.001)
        return ", ".join([f"{ended:,} done", *self._of_this_start(rate)]) if ended else ""

    def _of_this_start(self, rate: float) -> list[str]:
        parts = []
        if self.failed:
            reasons = ", ".join(f"{name} {n}" for name, n in self.reasons.most_common(3))
            parts.append(f"{self.failed:,} failed ({reasons})")
        if self.tokens:
            parts.append(f"{self.tokens:,} tokens")
        return [*parts, f"{rate:.1f}/s"]

    def __repr__(self) -> str:
        return f"<Progress: {self}>"


def _reason(outcome: RunResult | OpenAIRunsError) -> str | None:
    if isinstance(outcome, RunResult):
        return _reason_of_run(outcome.run)
    if isinstance(outcome, RunError) and isinstance(outcome.run, Run):
        return _reason_of_run(outcome.run) or type(outcome).__name__
    if isinstance(outcome, APIStatusError):
        return f"{outcome.status_code} {outcome.code or type(outcome).__name__}"
    return type(outcome).__name__


def _reason_of_run(run: Run) -> str | None:
    if run.status == RunStatus.COMPLETED:
        return None
    if run.last_error is not None:
        return run.last_error.code
    return run.status


def _spoken(seconds: float) -> str:
    """Return a time in words.

    >>> _spoken(7200 + 90), _spoken(61), _spoken(4.2)
    ('2 h 1 min', '1 min 1 s', '4 s')
    """
    hours, rest = divmod(round(seconds), round(_HOUR))
    minutes, rest = divmod(rest, round(_MINUTE))
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
