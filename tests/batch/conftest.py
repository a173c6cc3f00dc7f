"""A batch in one process, its server, and its folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from tests.batch.batching import Folder, Moody, Site, site


@pytest.fixture
def backend() -> Moody:
    """Return the backend of the server."""
    return Moody()


@pytest.fixture
async def server(backend: Moody, tmp_path: Path) -> AsyncIterator[Site]:
    """Serve."""
    async with site(tmp_path / "server.db", backend=lambda: backend) as served:
        yield served


@pytest.fixture
async def client(server: Site) -> AsyncIterator[AsyncClient]:
    """Yield a client of it."""
    async with AsyncClient(server.url, api_key=None) as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path, server: Site, client: AsyncClient) -> Folder:
    """Return a folder with nothing in it yet."""
    return Folder(tmp_path, server, client)
