"""The fixtures of the pytest plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from openai_runs._client.client import AsyncClient
from openai_runs.errors import ConfigError
from openai_runs.testing.server import RunsServer

__all__ = ["runs_client", "runs_server"]


@pytest.fixture
def runs_server() -> Iterator[RunsServer]:
    """The real server, with a database of its own and a model that follows a script."""
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
    async with AsyncClient(runs_server.url, api_key="test") as client:
        yield client
