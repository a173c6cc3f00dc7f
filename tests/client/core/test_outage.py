"""`client.outage`: since when the server gives no usable answer, and why."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import APIError, AsyncClient, PollPolicy, RetryPolicy
from openai_runs.testing import RunsServer
from tests.canaries import CANARY_KEY
from tests.support import Answer, HostileServer, run_json

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0.01),
}


async def test_outage_lasts_from_the_first_failure_to_the_next_answer(
    runs_server: RunsServer,
) -> None:
    """With its reason; copies of the client have the same."""
    async with AsyncClient(runs_server.url, api_key=CANARY_KEY, **AT_ONCE) as client:
        before = client.outage
        await runs_server.stop()
        with pytest.raises(APIError):
            await client.threads.create()
        first, copied = client.outage, client.with_options(max_retries=0).outage
        with pytest.raises(APIError):
            await client.threads.create()
        second = client.outage
        await runs_server.restart()
        await client.threads.create()
        after = client.outage

    assert (before, after) == (None, None)
    assert first is not None
    assert copied is not None
    assert second is not None
    assert first.reason.startswith("no connection to 127.0.0.1:")
    assert str(first) == f"no usable answer for {first.seconds:.0f} s: {first.reason}"
    assert (first.reason, second.reason) == (copied.reason, copied.reason)
    assert 0 <= first.seconds < second.seconds


@pytest.mark.parametrize(
    ("answer", "is_outage"),
    [
        pytest.param(Answer(500, json={"error": {"message": "Oh."}}), True, id="500"),
        pytest.param(Answer(503, json={"error": {"message": "Oh."}}), True, id="503"),
        pytest.param(Answer(429, json={"error": {"message": "Slow."}}), False, id="429"),
        pytest.param(Answer(404, json={"error": {"message": "No."}}), False, id="404"),
        pytest.param(Answer(409, json={"error": {"message": "No."}}), False, id="409"),
        pytest.param(Answer(401, json={"error": {"message": "No."}}), False, id="401"),
    ],
)
async def test_rejection_is_an_answer(answer: Answer, is_outage: bool) -> None:
    """A server that fails gives none."""
    async with (
        HostileServer(lambda request: answer) as server,
        AsyncClient(server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        with pytest.raises(APIError):
            await client.threads.retrieve("thread_1")

        assert (client.outage is not None) is is_outage


async def test_polls_of_a_wait_are_requests_too() -> None:
    """They begin an outage, and end it."""
    seen: list[bool] = []

    def respond(request: Any) -> Answer:
        seen.append(client.outage is not None)
        if len(seen) in {2, 3}:
            return Answer(503, json={"error": {"message": "Oh."}})
        return Answer(json=run_json(status="completed" if len(seen) == 5 else "in_progress"))

    async with (
        HostileServer(respond) as server,
        AsyncClient(server.url, api_key=CANARY_KEY, **AT_ONCE) as client,
    ):
        await client.runs.wait("run_1", thread_id="thread_1")

    assert seen == [False, False, True, True, False]
