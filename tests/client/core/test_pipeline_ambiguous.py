"""Requests that change something and carry no mark are sent once (docs/pages/guides/errors.md)."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import APIError, AsyncClient, BadRequestError, ConflictError, RateLimitError
from tests.client.ledger import LOSSES, Fate, Ledger, error, patience
from tests.support import Action, Answer, HostileServer, ManualClock, Received


def client_of(server: HostileServer, clock: ManualClock, **options: Any) -> AsyncClient:
    """Return a client whose pauses take no time."""
    return AsyncClient(server.url, seams=clock.runtime(), **options)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_create_and_run_is_not_repeated_when_ambiguous(loss: Action) -> None:
    """The thread is not known, so nothing can be verified: the error is raised."""
    ledger, clock = Ledger(Fate(loss)), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.threads.create_and_run(assistant_id="asst_1")

    assert caught.value.maybe_created
    assert len(server.requests) == len(ledger.runs) == 1
    assert ledger.runs[0]["metadata"] == {}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_create_and_run_is_replayed_when_the_server_honours_keys(loss: Action) -> None:
    """One run, also where the answer to the first request was lost."""
    ledger, clock = Ledger(keys=True), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        await client.runs.list("thread_1")
        ledger.fates = [Fate(loss)]
        run = await client.threads.create_and_run(assistant_id="asst_1")

    assert (run.id, len(ledger.runs), ledger.posts) == ("run_1", 1, 2)


async def test_features_are_learnt_from_the_very_answer_that_failed() -> None:
    """A 500 of a server that names its features may be sent again at once."""
    ledger, clock = Ledger(Fate(error(500)), keys=True), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.threads.create_and_run(assistant_id="asst_1")

    assert (run.id, len(ledger.runs), ledger.posts) == ("run_1", 1, 2)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("call", ["thread", "message", "assistant", "update"])
async def test_creates_without_a_mark_are_not_repeated_when_ambiguous(
    call: str, loss: Action
) -> None:
    """What cannot be looked for is sent once, and the exception says it may exist."""

    async def make(client: AsyncClient) -> object:
        match call:
            case "thread":
                return await client.threads.create()
            case "message":
                return await client.messages.create("thread_1", role="user", content="Hi")
            case "assistant":
                return await client.assistants.create(model="m")
            case _:
                return await client.threads.update("thread_1", metadata={})

    clock = ManualClock()
    async with (
        HostileServer(lambda _: loss) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        with pytest.raises(APIError) as caught:
            await make(client)

    assert caught.value.maybe_created
    assert caught.value.idempotency_key == server.requests[0].headers["idempotency-key"]
    assert len(server.requests) == 1
    assert clock.slept == []


async def test_post_is_repeated_when_refused_with_429() -> None:
    """429 means that nothing was done, so also a create without a mark is repeated."""
    answers = [error(429, retry_after="3"), Answer(json={"id": "thread_9"})]
    clock = ManualClock()
    async with (
        HostileServer(lambda _: answers.pop(0)) as server,
        client_of(server, clock) as client,
    ):
        thread = await client.threads.create()

    assert thread.id == "thread_9"
    assert clock.slept == [3.0]
    first, second = server.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [(409, {}), (409, {"x_should_retry": "true"}), (400, {"x_should_retry": "true"})],
    ids=["409", "409-should-retry", "400-should-retry"],
)
async def test_post_is_not_repeated_when_refused_otherwise(
    status: int, headers: dict[str, str]
) -> None:
    """Only 429 says that nothing was done, whatever `x-should-retry` asks for."""
    answer = error(status, **headers)
    async with (
        HostileServer(lambda _: answer) as server,
        client_of(server, ManualClock()) as client,
    ):
        with pytest.raises((ConflictError, BadRequestError)) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert len(server.requests) == 1
    assert not caught.value.maybe_created


async def test_doubt_is_kept_when_a_later_attempt_is_refused() -> None:
    """500 and then 429 until the retries are spent: the first attempt may have worked."""
    answers: list[Action] = [error(500), error(429), error(429)]

    def handler(request: Received) -> Action:
        return Answer(json={"data": []}) if request.method == "GET" else answers.pop(0)

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.maybe_created
    assert caught.value.attempts == 3


async def test_unreadable_answer_to_a_create_says_that_it_may_exist() -> None:
    """The server answered 200, so it did something; what, nobody can read."""
    async with (
        HostileServer(lambda _: Answer(body=b"<html>")) as server,
        client_of(server, ManualClock()) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.maybe_created
    assert len(server.requests) == 1
