"""What the tests of whole programs share: a client, a browser, and the page of the web guide."""

import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

import openai_runs
from openai_runs import AsyncClient, PollPolicy, RetryPolicy
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY
from tests.e2e.browsing import CHROMIUM, Tab, browsing
from tests.e2e.chat_page import GUIDE


@pytest.fixture
async def runs_client(runs_server: RunsServer) -> AsyncIterator[AsyncClient]:
    """A client of `runs_server`, closed at the end."""
    async with AsyncClient(runs_server.url, api_key=CANARY_KEY) as client:
        yield client


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    """Yield a tab of the browser."""
    assert CHROMIUM, "there is no Chromium on this machine"
    async with browsing(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def page_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the programs run in, where the page lies."""
    monkeypatch.chdir(tmp_path)
    found = re.search(r"^```html\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "page.html").write_text(found[1])
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the programs' clients give up soon."""
    poll = PollPolicy(initial=0, maximum=0.01, max_outage=0.05)
    impatient = partial(AsyncClient, retry=RetryPolicy(max_retries=0), poll=poll)
    monkeypatch.setattr(openai_runs, "AsyncClient", impatient)
