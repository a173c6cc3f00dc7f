"""A program that forgets to close what it opened; run by test_forgotten.py, in its own process."""

import asyncio
import atexit
import os
import sys

from openai_runs import AsyncClient
from openai_runs.server import LocalServer


async def use(client: AsyncClient) -> None:
    """Have the server write to its file."""
    await client.threads.create()


async def forget_client() -> None:
    """Use a client without `async with`."""
    await use(AsyncClient.local())


async def forget_server() -> None:
    """Open a server, and never close it."""
    server = LocalServer()
    await server.start()
    async with AsyncClient(server.url, "key") as client:
        await use(client)


async def raise_first() -> None:
    """Meet an exception while a client is open that nobody closes."""
    await forget_client()
    message = "of the program's own"
    raise LookupError(message)


async def fork_first() -> None:
    """Have a forked process end, and use the client after it."""
    client = AsyncClient.local()
    await use(client)
    pid = os.fork()
    if pid == 0:
        atexit._run_exitfuncs()  # all that runs when an interpreter ends, and no event loop
        os._exit(0)
    os.waitpid(pid, 0)  # noqa: ASYNC222 - a program of its own
    await use(client)


async def leave_loop() -> None:
    """End the interpreter from within the loop."""
    await forget_client()
    sys.exit(3)


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
