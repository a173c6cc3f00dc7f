"""Which planned fault strikes which request or answer; decided from their heads alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from openai_runs.testing.faults import Fault, Refuse
from openai_runs.testing.http_messages import Head

__all__ = ["Schedule"]


class _Plan(NamedTuple):
    """Faults that strike one after the other."""

    faults: deque[Fault]
    on: str | None

    def aims_at_request(self, head: Head) -> bool:
        """Tell whether the next fault is for this request, or its answer whatever it is."""
        if self.on is None:
            return isinstance(self.faults[0], Refuse)
        return self.on.casefold() in head.raw.decode("latin-1").casefold()

    def aims_at_answer(self, head: Head) -> bool:
        """Tell whether the next fault is for this answer, for what the answer is."""
        return self.on is None and not isinstance(self.faults[0], Refuse) and head.is_stream


class Schedule:
    """The plans of a proxy, the oldest first."""

    def __init__(self) -> None:
        self._plans: list[_Plan] = []

    @property
    def left(self) -> int:
        """Return how many faults have not been taken."""
        return sum(len(plan.faults) for plan in self._plans)

    def add(self, faults: Iterable[Fault], on: str | None) -> None:
        """Add a plan."""
        self._plans.append(_Plan(deque(faults), on))

    def take_for_request(self, head: Head) -> Fault | None:
        """Return the fault that this request's head asks for."""
        return self._take([plan for plan in self._open if plan.aims_at_request(head)])

    def take_for_answer(self, head: Head) -> Fault | None:
        """Return the fault that this answer's head asks for."""
        return self._take([plan for plan in self._open if plan.aims_at_answer(head)])

    @property
    def _open(self) -> list[_Plan]:
        return [plan for plan in self._plans if plan.faults]

    def _take(self, aiming: list[_Plan]) -> Fault | None:
        return aiming[0].faults.popleft() if aiming else None
