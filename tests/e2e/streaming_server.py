"""A server to be killed in mid-stream: prints its URL, and drains on SIGTERM.

Arguments: the file, and the port (0: any free one). Each run calls a tool and then says as
many pieces as its question says, a moment apart; see `streamed_run`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from functools import partial

from openai_runs.server import LocalServer, ScriptedBackend
from tests.e2e.streamed_run import turn_of

PAUSE = 0.002
"""Seconds between two pieces: so many of them are on their way at any time."""


async def main() -> None:
    """Serve until killed, or until SIGTERM: then put back what is under way, and end."""
    backend = ScriptedBackend(partial(turn_of, pause=PAUSE))
    server = LocalServer(sys.argv[1], backend, port=int(sys.argv[2]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print(server.url, flush=True)  # noqa: T201 - how the test learns where it is
    await stop.wait()
    await server.drain(0.05)
    await server.aclose()


if __name__ == "__main__":
    asyncio.run(main())
