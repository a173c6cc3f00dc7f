"""Who is measured: ours, the floor, and the official client over each of its transports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.referee import environments

__all__ = ["ALL", "FLOOR", "OURS", "Contestant", "prepare"]


class Contestant(NamedTuple):
    """One client, and the interpreter that has it."""

    name: str
    module: str
    environment: str | None = None
    """The official client's environment; None: this interpreter."""
    params: dict[str, Any] = {}
    """What its process is told beyond the row's own."""
    share: float = 1.0
    """Of a row's repetitions: whoever takes many times as long needs fewer to be measured."""

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        if self.environment is None:
            return Path(sys.executable)
        return environments.python(self.environment)


FLOOR = Contestant("floor", "tests.benchmarks.clients.floor")
OURS = Contestant("ours", "tests.benchmarks.clients.ours")
_OFFICIAL = "tests.benchmarks.clients.official"

ALL = (
    FLOOR,
    OURS,
    Contestant("official 2.54, httpx", _OFFICIAL, "2.54.0", {"transport": "httpx"}, 0.2),
    Contestant(
        "official 2.54, aiohttp", _OFFICIAL, "2.54.0-aiohttp", {"transport": "aiohttp"}, 0.2
    ),
    Contestant("official 3, httpx", _OFFICIAL, "3", {"transport": "httpx"}, 0.2),
)
"""In the order of the tables."""


def prepare(contestants: list[Contestant]) -> None:
    """Make the environments that these need; what is there is kept."""
    for contestant in contestants:
        if contestant.environment is not None:
            environments.make(contestant.environment)
