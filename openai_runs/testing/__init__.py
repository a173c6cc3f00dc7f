"""Tools for tests: the real server with a model that follows a script, and a faulty way to it.

The pytest plugin is there where this package is installed: `runs_server` is a `RunsServer`,
`runs_client` an `AsyncClient` for it. It needs `pytest`, `pytest-asyncio` and the extra `server`;
a suite that loads no plugins by itself names it in the root `conftest.py`, with
`pytest_plugins = ["openai_runs.testing"]`. `FaultProxy` stands between any client and any server.

Names are loaded when first used, since pytest loads the plugin in every suite.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from openai_runs.testing.connection import PassedAnswer
    from openai_runs.testing.faults import (
        Cut,
        Delay,
        End,
        Fault,
        Pass,
        Refuse,
        Reset,
        Stall,
        Trickle,
    )
    from openai_runs.testing.fixtures import runs_client, runs_server
    from openai_runs.testing.proxy import FaultProxy
    from openai_runs.testing.received import ReceivedRequest
    from openai_runs.testing.repair import repair_aioresponses
    from openai_runs.testing.server import RunsServer, Which

_MODULES: Final = {
    "PassedAnswer": "openai_runs.testing.connection",
    "Cut": "openai_runs.testing.faults",
    "Delay": "openai_runs.testing.faults",
    "End": "openai_runs.testing.faults",
    "Fault": "openai_runs.testing.faults",
    "Pass": "openai_runs.testing.faults",
    "Refuse": "openai_runs.testing.faults",
    "Reset": "openai_runs.testing.faults",
    "Stall": "openai_runs.testing.faults",
    "Trickle": "openai_runs.testing.faults",
    "runs_client": "openai_runs.testing.fixtures",
    "runs_server": "openai_runs.testing.fixtures",
    "FaultProxy": "openai_runs.testing.proxy",
    "ReceivedRequest": "openai_runs.testing.received",
    "repair_aioresponses": "openai_runs.testing.repair",
    "RunsServer": "openai_runs.testing.server",
    "Which": "openai_runs.testing.server",
}

__all__ = [
    "Cut",
    "Delay",
    "End",
    "Fault",
    "FaultProxy",
    "Pass",
    "PassedAnswer",
    "ReceivedRequest",
    "Refuse",
    "Reset",
    "RunsServer",
    "Stall",
    "Trickle",
    "Which",
    "repair_aioresponses",
    "runs_client",
    "runs_server",
]


def __getattr__(name: str) -> Any:
    """Load `name` from its module."""
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
