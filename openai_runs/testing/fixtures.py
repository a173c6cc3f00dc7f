"""The pytest plugin: its fixtures. Every pytest of an environment with this package loads it.

So nothing is imported here before a test asks for a fixture: no client, no server, no aiohttp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from openai_runs._client.client import AsyncClient
    from openai_runs.testing.server import RunsServer

__all__ = ["runs_client", "runs_server"]


@pytest.fixture
def runs_server() -> Iterator[RunsServer]:
    """The real server, with a database of its own and a model that follows a script."""
    from openai_runs.errors import ConfigError
    from openai_runs.testing.server import RunsServer

    try:
        with RunsServer() as server:
            yield server
    except ConfigError as problem:
        pytest.fail(str(problem), pytrace=False)


def _async_fixture(function: Callable[..., AsyncIterator[AsyncClient]]) -> Any:
    try:
        from pytest_asyncio import fixture
    except ImportError:
        return pytest.fixture(_without_asyncio, name=function.__name__)
    return fixture(function)


def _without_asyncio() -> None:
    pytest.fail("runs_client needs pytest-asyncio: pip install pytest-asyncio", pytrace=False)


@_async_fixture
async def runs_client(runs_server: RunsServer) -> AsyncIterator[AsyncClient]:
    """A client of `runs_server`, closed at the end."""
    from openai_runs._client.client import AsyncClient

    async with AsyncClient(runs_server.url, api_key="test") as client:
        yield client
