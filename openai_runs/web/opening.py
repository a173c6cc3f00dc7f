"""What an application has open as long as it is served: a client, and what is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from openai_runs import AsyncClient

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
            objects[name] = await stack.enter_async_context(make(client))
        yield objects
