"""Servers to call: the real one, on a real socket and a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openai_runs.server import Backend, LocalServer, ScriptedBackend
from tests.canaries import CANARY_KEY
from tests.databases import Database
from tests.server.support import Caller

Serve = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def serve(tmp_path: Path, database: Database) -> AsyncIterator[Serve]:
    """A function that opens a server with a script, and returns who calls it."""
    async with AsyncExitStack() as stack:
        headers = {"Authorization": f"Bearer {CANARY_KEY}"}  # a server without a key takes any
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))

        async def open_server(
            *script: Any, backend: Backend | None = None, **options: Any
        ) -> Caller:
            used = backend or ScriptedBackend(script or (lambda request: "Fine."))
            db = options.pop("db", tmp_path / "runs.db")
            db = database(db) if isinstance(db, Path) else db
            server = await stack.enter_async_context(LocalServer(db, used, **options))
            return Caller(session, server.url, server.aclose)

        yield open_server


@pytest.fixture
async def caller(serve: Serve) -> Caller:
    """Calls a server whose model always says "Fine."."""
    return await serve()
