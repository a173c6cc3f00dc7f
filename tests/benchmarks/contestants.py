"""Who is measured: ours, the baseline, and the official client over each of its transports."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.referee import environments

__all__ = ["AIOHTTP", "ALL", "BASELINE", "OURS", "Contestant", "prepare", "starting"]


class Contestant(NamedTuple):
    """One client, and the interpreter that has it."""

    name: str
    kind: str
    """`baseline`, `ours` or `official`."""
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


def _official(name: str, environment: str, transport: str) -> Contestant:
    module = "tests.benchmarks.clients.official"
    return Contestant(name, "official", module, environment, {"transport": transport}, 0.1)


BASELINE = Contestant("baseline", "baseline", "tests.benchmarks.clients.baseline")
OURS = Contestant("ours", "ours", "tests.benchmarks.clients.ours")
_HTTPX = _official("official 2.54, httpx", "2.54.0", "httpx")
AIOHTTP = _official("official 2.54, aiohttp", "2.54.0-aiohttp", "aiohttp")

ALL = (BASELINE, OURS, _HTTPX, AIOHTTP)
"""In the order of the tables."""


def starting(codes: dict[str, str]) -> tuple[Contestant, ...]:
    """Return contestants that start an interpreter with this code, by their names in `ALL`."""
    module = "tests.benchmarks.clients.starting"
    return tuple(
        one._replace(module=module, params={"code": codes[one.name]}, share=1.0)
        for one in ALL
        if one.name in codes
    )


def prepare(contestants: Iterable[Contestant]) -> None:
    """Make the environments that these need; what is there is kept."""
    for environment in {one.environment for one in contestants} - {None}:
        environments.make(str(environment))
