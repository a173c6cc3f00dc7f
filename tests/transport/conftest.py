"""A transport with one connection, and a server that misbehaves by path."""

from collections.abc import AsyncIterator

import pytest

from openai_runs._transport import Transport
from tests.support import HostileServer
from tests.transport.wire import misbehave


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport with a single connection, so that a connection never given back is noticed."""
    made = Transport(max_connections=1)
    yield made
    await made.aclose()


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    """A server that does what the path says."""
    async with HostileServer(misbehave) as started:
        yield started
