"""Tools for tests: the real server with a model that follows a script, and a faulty way to it.

Enable the pytest plugin in the root `conftest.py` with `pytest_plugins = ["openai_runs.testing"]`;
it needs `pytest`, `pytest-asyncio` and the `server` extra. `runs_server` is a `RunsServer`,
`runs_client` an `AsyncClient` for it. `FaultProxy` stands between any client and any server.
"""

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
