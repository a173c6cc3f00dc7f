"""What an application has open as long as it is served: a client, and what is made of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from types import FrameType
from typing import Any

from openai_runs import AsyncClient
from openai_runs.web.chat import Chat

__all__ = ["MakeClient", "MakeOther", "opened"]

MakeClient = Callable[[], AbstractAsyncContextManager[AsyncClient]]
MakeOther = Callable[[AsyncClient], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def opened(
    make_client: MakeClient, makers: Mapping[str, MakeOther]
) -> AsyncIterator[dict[str, Any]]:
    """Open a client and what is made of it, in this order; close all in the reverse one.

    Nothing is made before: a client belongs to the event loop that it is first used in.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(make_client())
        objects: dict[str, Any] = {"client": client}
        for name, make in makers.items():
            objects[name] = one = await stack.enter_async_context(make(client))
            if isinstance(one, Chat):
                stack.enter_context(_at_signal(one.end_responses))
        yield objects


@contextmanager
def _at_signal(call: Callable[[], None]) -> Iterator[None]:
    """Have a function called when a signal asks the process to end, before the server's handler.

    A web server closes its applications after its responses, and says nothing to them before.
    Only a main thread has signals.
    """
    loop = asyncio.get_running_loop()
    befores: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        befores[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        befores = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        befores = {one: before for one, before in befores.items() if callable(before)}
    for number in befores:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, before in befores.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, before)
