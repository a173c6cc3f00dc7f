"""The model endpoint's key is told to nobody, however the endpoint quotes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openai_runs.server import ChatBackend
from tests.server.backends.chat.test_backend import QUICK, answer, endpoint
from tests.server.conftest import Serve

QUOTES = {
    "refused": lambda key: answer(f'{{"error": {{"message": "no {key}"}}}}'.encode(), 400),
    "an error in a stream": lambda key: answer(
        f'data: {{"error": {{"message": "no {key}"}}}}\n\n'.encode(),
        200,
        "content-type: text/event-stream",
    ),
    "words in a stream": lambda key: answer(
        f"event: error\ndata: no {key}\n\n".encode(), 200, "content-type: text/event-stream"
    ),
}


@pytest.mark.parametrize("quoted", QUOTES.values(), ids=QUOTES)
@pytest.mark.parametrize(
    "written",
    ["se/cret=of-mine", "se\\/cret=of-mine", "se/cret\\u003dof-mine", "se%2Fcret%3dof-mine"],
    ids=["literal", "slash", "unicode", "percent"],
)
async def test_key_that_the_endpoint_quotes_is_not_told(
    serve: Serve, quoted: Callable[[str], bytes], written: str
) -> None:
    """However it is escaped, the run's `last_error` has three stars in its place."""
    async with endpoint(quoted(written)) as used:
        backend = ChatBackend(used.url, api_key="se/cret=of-mine", retry=QUICK)
        caller = await serve(backend=backend)
        run = await caller.settled(await caller.start("Hello", tools=[]))

    assert run["last_error"]["message"].endswith("no ***")
