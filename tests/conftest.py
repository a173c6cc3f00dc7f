"""What holds for every test: a clean environment and an event loop that is never blocked."""

import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from openai_runs.testing import repair_aioresponses

pytest_plugins = ["openai_runs.testing"]

repair_aioresponses()


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, endpoint or version of the developer's own reaches a test."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """A blocking call of ours on a running event loop is an error; nothing of ours is exempt."""
    with blockbuster_ctx("openai_runs") as blocker:
        yield blocker
