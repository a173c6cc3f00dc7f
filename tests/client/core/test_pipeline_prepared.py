"""Calls that are put together once and sent again and again, as a wait does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.core.state import ClientState
from openai_runs._client.settings import Credential, Settings
from openai_runs._protocol.endpoints import GET_RUN
from openai_runs._protocol.spec import RequestSpec
from openai_runs._transport import Transport
from openai_runs.errors import APIConnectionError
from openai_runs.types.runs import Run
from tests.support import Answer, Drop, HostileServer, run_json

RUN: RequestSpec[Run] = GET_RUN.spec({"thread_id": "thread_1", "run_id": "run_1"})


@asynccontextmanager
async def pipeline_to(
    server: HostileServer, credential: Credential | None = "sk-key-of-mine"
) -> AsyncIterator[Pipeline]:
    """Yield a pipeline to the server, and close its connections."""
    settings = Settings(
        base_url=server.url, credential=credential, default_headers={"prefer": "safe"}
    )
    state = ClientState(Transport())
    try:
        yield Pipeline(settings, state)
    finally:
        await state.aclose()


async def test_prepared_call_is_the_same_request_each_time() -> None:
    """Nothing of one poll is left over in the next: neither `Prefer` nor the attempts."""
    async with (
        HostileServer(lambda _: Answer(json=run_json())) as server,
        pipeline_to(server) as pipeline,
    ):
        call = pipeline.prepare(RUN, {"extra_headers": {"X-Trace": "1"}})
        polled = [await pipeline.poll(call, hold=hold, timeout=5.0) for hold in (0, 7, 0)]

    sent = [dict(one.headers) for one in server.requests]
    assert [one.pop("prefer") for one in sent] == ["safe", "wait=7", "safe"]
    assert sent[0] == sent[1] == sent[2]
    assert sent[0].items() >= {"x-trace": "1", "authorization": "Bearer sk-key-of-mine"}.items()
    assert [one.answer.http.attempts for one in polled] == [1, 1, 1]


async def test_prepared_call_asks_for_the_key_each_time() -> None:
    """A token that is renewed between two polls is sent renewed."""
    keys = iter(["sk-first-key", "sk-second-key"])
    async with (
        HostileServer(lambda _: Answer(json=run_json())) as server,
        pipeline_to(server, lambda: next(keys)) as pipeline,
    ):
        call = pipeline.prepare(RUN)
        for _ in range(2):
            await pipeline.poll(call, hold=0, timeout=5.0)

    sent = [one.headers["authorization"] for one in server.requests]
    assert sent == ["Bearer sk-first-key", "Bearer sk-second-key"]


async def test_poll_that_fails_says_which_run_and_is_one_attempt() -> None:
    """The error of the second poll knows nothing of the first."""
    async with HostileServer(lambda _: Drop()) as server, pipeline_to(server) as pipeline:
        call = pipeline.prepare(RUN)
        for _ in range(2):
            with pytest.raises(APIConnectionError) as caught:
                await pipeline.poll(call, hold=0, timeout=5.0)

            assert (caught.value.run_id, caught.value.attempts) == ("run_1", 1)
    assert len(server.requests) == 2


async def test_calls_do_not_share_what_they_lay_over_the_headers() -> None:
    """An extra header of one call is not sent with the next."""
    async with (
        HostileServer(lambda _: Answer(json=run_json())) as server,
        pipeline_to(server) as pipeline,
    ):
        for extra in ({"X-Mine": "1"}, None):
            await pipeline.send(RUN, {"extra_headers": extra})

    assert ["x-mine" in one.headers for one in server.requests] == [True, False]
