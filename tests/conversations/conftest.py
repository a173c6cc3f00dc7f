"""What the tests of conversations share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openai_runs import (
    AsyncClient,
)
from openai_runs.server import LocalServer, ScriptedBackend
from tests.conversations.talking import Bot


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    """Return a bot whose model has no lines yet."""
    model = ScriptedBackend()
    async with LocalServer(backend=model) as server, AsyncClient(server.url) as client:
        made = Bot(model, client, tmp_path)
        made.assistant = await client.assistants.create(model="scripted")
        yield made
