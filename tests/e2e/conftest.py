"""The client of the shipped fixtures, with the canary for its key."""

from collections.abc import AsyncIterator

import pytest

from openai_runs import AsyncClient
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY


@pytest.fixture
async def runs_client(runs_server: RunsServer) -> AsyncIterator[AsyncClient]:
    """A client of `runs_server`, closed at the end."""
    async with AsyncClient(runs_server.url, api_key=CANARY_KEY) as client:
        yield client
