"""The server of the soak: durable, in front of a faulty model endpoint.

    python -m tests.soak.server FILE MODEL_URL

What the server keeps for a day it keeps here for minutes, so that an hour shows what days would.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Final

from openai_runs._cli.commands.serve import spare_collections
from openai_runs.server import ChatBackend, LocalServer
from openai_runs.server.execution import engine
from openai_runs.server.log_filter import ContentFilter
from openai_runs.server.store import idempotency
from tests.soak.probe import probed

KEPT: Final = 120
"""Seconds that idempotency keys are kept; a day in real life."""
PRUNED: Final = 20.0
"""Seconds between two clearings; an hour in real life."""


async def serve(path: str, model: str) -> None:
    """Print the address, and serve until standard input is closed."""
    server = LocalServer(path, ChatBackend(model, first_token_timeout=8, idle_timeout=3))
    await server.start()
    spare_collections()
    print(server.url, flush=True)
    await probed()
    await server.drain(1)
    await server.aclose()


def main() -> None:
    """Serve."""
    for module, name, value in (
        (idempotency, "IDEMPOTENCY_TTL", KEPT),
        (engine, "_PRUNE_INTERVAL", PRUNED),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)
    handler = logging.StreamHandler()
    handler.addFilter(ContentFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("openai_runs").setLevel(logging.INFO)
    asyncio.run(serve(*sys.argv[1:3]))


if __name__ == "__main__":
    main()
