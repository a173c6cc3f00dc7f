"""A create whose answer was lost happens once (docs/pages/guides/errors.md)."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import (
    ActiveRunError,
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncClient,
    InternalServerError,
    RateLimits,
    RetryPolicy,
    Run,
)
from openai_runs.types import ADOPTION_KEY
from tests.client.ledger import LOSSES, NEVER_DONE, Fate, Ledger, error, patience
from tests.support import Action, Answer, Drop, Hang, HostileServer, ManualClock, Received

SIXTEEN = {f"k{number}": "v" for number in range(16)}


def client_of(server: HostileServer, clock: ManualClock, **options: Any) -> AsyncClient:
    """Return a client whose pauses take no time."""
    runtime = clock.runtime(new_key=iter(f"key-{n}" for n in range(99)).__next__)
    return AsyncClient(server.url, seams=runtime, **options)


def is_clean(run: Run) -> bool:
    """Tell whether nothing of our mark can be seen on the run."""
    return all(ADOPTION_KEY not in text for text in (repr(run), str(run.to_dict()), run.to_json()))


@pytest.mark.parametrize("keys", [False, True], ids=["without-keys", "with-keys"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_run_is_made_once_when_the_answer_is_lost(loss: Action, keys: bool) -> None:
    """The server stored the run and the answer was lost: that run is returned, and no second."""
    ledger, clock = Ledger(Fate(loss), keys=keys), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        run = await client.runs.create("thread_1", assistant_id="asst_1", metadata={"a": "b"})

    assert len(ledger.runs) == 1
    assert run.id == "run_1"
    assert run.metadata == {"a": "b"}
    assert run.to_dict() == ledger.copy_of()
    assert run.http is not None
    assert is_clean(run)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_run_is_made_once_when_the_server_did_nothing(loss: Action) -> None:
    """Lost before the server did anything: two looks find nothing, and the create is repeated."""
    ledger, clock = Ledger(Fate(loss, done=False)), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert len(ledger.runs) == 1
    assert (run.id, ledger.posts) == ("run_1", 2)
    assert len(server.seen("GET", "/runs")) == 2
    first, second = server.seen("POST")
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_retry_after_is_kept_when_a_lost_create_is_repeated() -> None:
    """The pause the server asked for comes on top of the look."""
    clock = ManualClock()
    ledger = Ledger(Fate(error(503, retry_after="7"), done=False))
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        await client.runs.create("thread_1", assistant_id="asst_1")

    assert clock.slept == [0.5, 7.0]


async def test_second_look_finds_the_run_when_the_list_is_still_empty_at_the_first() -> None:
    """A list that lags behind does not lead to a second run."""
    ledger, clock = Ledger(Fate(Drop()), unseen=1), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert (run.id, ledger.posts, len(ledger.runs)) == ("run_1", 1, 1)
    assert clock.slept == [0.5]


async def test_busy_thread_is_adopted_when_the_blocking_run_is_this_calls_own() -> None:
    """Both looks came too early and the second create is refused: the run in the way is ours."""
    ledger, clock = Ledger(Fate(Drop()), unseen=2), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert (run.id, ledger.posts, len(ledger.runs)) == ("run_1", 2, 1)
    assert is_clean(run)


async def test_busy_thread_is_an_error_when_the_blocking_run_is_anothers() -> None:
    """The second create is refused for a run without our mark: `ActiveRunError` names it."""
    ledger, clock = Ledger(NEVER_DONE), ManualClock()
    ledger.runs.append({**Ledger()._store({}, None), "id": "run_other"})
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        with pytest.raises(ActiveRunError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.blocking_run_id == "run_other"
    assert caught.value.maybe_created
    assert caught.value.attempts == 2


async def test_busy_thread_is_an_error_at_once_when_nothing_was_in_doubt() -> None:
    """A first answer of 400 costs no look and no repetition."""
    ledger, clock = Ledger(), ManualClock()
    ledger._store({}, None)
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        with pytest.raises(ActiveRunError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.blocking_run_id == "run_1"
    assert caught.value.thread_id == "thread_1"
    assert not caught.value.maybe_created
    assert len(server.requests) == 1


@pytest.mark.parametrize("unseen", [0, 1, 2, 3], ids=lambda count: f"{count}-looks-too-early")
async def test_looks_for_a_lost_create_keep_to_the_rate_limit(unseen: int) -> None:
    """Each request has a permit of its own, the look at the run in the way included."""
    ledger, clock, sent = Ledger(Fate(Drop()), unseen=unseen), ManualClock(), list[float]()

    def handler(request: Received) -> Action:
        sent.append(clock.now)
        return ledger(request)

    limits = RateLimits(requests_per_minute=2)
    async with (
        HostileServer(handler) as server,
        client_of(server, clock, limits=limits) as client,
    ):
        run = await client.runs.create("thread_1", assistant_id="asst_1")
        counted = client.limits.calls + client.limits.polls

    assert (run.id, len(ledger.runs)) == ("run_1", 1)
    assert counted == len(sent)
    assert all(later - first >= 60 for first, later in zip(sent, sent[2:], strict=False))


async def test_look_that_may_not_be_sent_in_time_is_an_error_and_no_request() -> None:
    """No permit before the deadline: the create may exist, and nothing is sent without one."""
    ledger, limits = Ledger(Fate(Drop()), unseen=2), RateLimits(requests_per_minute=1)
    async with HostileServer(ledger) as server, AsyncClient(server.url, limits=limits) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1", timeout=0.3)

    assert caught.value.maybe_created
    assert caught.value.idempotency_key
    assert len(server.requests) == 1


async def test_late_create_is_adopted_when_it_lands_before_the_second() -> None:
    """The first request was slow, not lost: it arrives just before the repetition."""
    ledger, clock = Ledger(Fate(Drop(), done=False), late=2), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert (run.id, len(ledger.runs)) == ("run_1", 1)


async def test_mark_is_hidden_wherever_a_run_is_returned() -> None:
    """Retrieve, list, page, iteration and update show no mark."""
    ledger, clock = Ledger(), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        created = await client.runs.create("thread_1", assistant_id="asst_1")
        retrieved = await client.runs.retrieve("run_1", thread_id="thread_1")
        page = await client.runs.list("thread_1")
        listed = [run async for run in client.runs.list("thread_1")]

    assert ledger.runs[0]["metadata"] == {ADOPTION_KEY: "key-0"}
    for run in (created, retrieved, *page.data, *listed):
        assert run.metadata == {}
        assert is_clean(run)
    assert ADOPTION_KEY not in page.to_json()
    assert page.to_dict()["data"] == [ledger.copy_of()]


async def test_mark_is_left_out_once_the_server_is_known_to_honour_keys() -> None:
    """The first answer tells; from then on the server's own memory is relied on."""
    ledger, clock = Ledger(keys=True), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        await client.runs.list("thread_1")
        await client.runs.create("thread_1", assistant_id="asst_1", metadata={"a": "b"})

    assert ledger.runs[0]["metadata"] == {"a": "b"}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_create_is_replayed_when_the_server_honours_keys(loss: Action) -> None:
    """No look is needed: the same key gets the same answer."""
    ledger, clock = Ledger(keys=True), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        await client.runs.list("thread_1")
        ledger.fates = [Fate(loss)]
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert (run.id, len(ledger.runs), ledger.posts) == ("run_1", 1, 2)
    assert len(server.seen("GET")) == 1
    first, second = server.seen("POST")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_nothing_is_sent_again_when_all_metadata_pairs_are_taken(loss: Action) -> None:
    """With 16 pairs of the caller's there is no room for the mark, so the doubt is raised."""
    ledger, clock = Ledger(Fate(loss)), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss)) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1", metadata=SIXTEEN)

    assert caught.value.maybe_created
    assert caught.value.thread_id == "thread_1"
    assert [request.method for request in server.requests] == ["POST"]
    assert ledger.runs[0]["metadata"] == SIXTEEN


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_nothing_is_sent_again_when_adoption_is_turned_off(loss: Action) -> None:
    """`RetryPolicy(adopt=False)`: no mark, and so no repetition in doubt."""
    ledger, clock = Ledger(Fate(loss)), ManualClock()
    retry = RetryPolicy(adopt=False)
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, request_timeout=patience(loss), retry=retry) as client,
    ):
        with pytest.raises(APIError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.maybe_created
    assert [request.method for request in server.requests] == ["POST"]
    assert ledger.runs[0]["metadata"] == {}


async def test_metadata_of_the_extra_body_is_marked_too() -> None:
    """What `extra_body` lays over the body is kept, and the run is found by its mark."""
    ledger, clock = Ledger(Fate(Drop())), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        run = await client.runs.create(
            "thread_1", assistant_id="asst_1", extra_body={"metadata": {"c": "d"}, "new": 1}
        )

    assert run.metadata == {"c": "d"}
    assert server.seen("POST")[0].json["new"] == 1
    assert ledger.posts == 1


@pytest.mark.parametrize("refusal", [error(404), error(401), error(400)], ids=["404", "401", "400"])
async def test_nothing_is_sent_again_when_verifying_fails(refusal: Answer) -> None:
    """A server that cannot be asked what it did is not asked to do it again."""
    posts = Ledger(Fate(error(500)))

    def handler(request: Received) -> Action:
        return refusal if request.method == "GET" else posts(request)

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        with pytest.raises(InternalServerError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert caught.value.maybe_created
    assert "verifying" in caught.value.__notes__[0]
    assert len(server.seen("POST")) == 1


async def test_look_uses_the_headers_of_the_call() -> None:
    """A gateway that needs a header for the create needs it for the look as well."""
    ledger = Ledger(Fate(Drop()))
    async with HostileServer(ledger) as server, client_of(server, ManualClock()) as client:
        await client.runs.create(
            "thread_1",
            assistant_id="asst_1",
            extra_headers={"X-Tenant": "t"},
            extra_query={"api-version": "v1"},
        )

    assert {request.headers.get("x-tenant") for request in server.requests} == {"t"}
    assert {request.query["api-version"][0] for request in server.requests} == {"v1"}


async def test_key_of_the_caller_is_sent_marked_and_found() -> None:
    """`idempotency_key=` is the header, the mark, and what `recover` looks for."""
    ledger, clock = Ledger(Fate(Drop())), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        await client.runs.create("thread_1", assistant_id="asst_1", idempotency_key="mine")
        recovered = await client.runs.recover("thread_1", idempotency_key="mine")
        missed = await client.runs.recover("thread_1", idempotency_key="other")

    assert ledger.tokens == ["mine"]
    assert ledger.runs[0]["metadata"] == {ADOPTION_KEY: "mine"}
    assert recovered is not None
    assert recovered.id == "run_1"
    assert is_clean(recovered)
    assert missed is None


async def test_lost_run_is_recovered_by_the_key_on_the_exception() -> None:
    """A create given up on can be picked up later, with what its exception carries."""
    ledger, clock = Ledger(Fate(Drop()), unseen=2), ManualClock()
    async with (
        HostileServer(ledger) as server,
        client_of(server, clock, max_retries=0) as client,
    ):
        with pytest.raises(APIConnectionError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1")
        recovered = await client.runs.recover(
            "thread_1", idempotency_key=caught.value.idempotency_key
        )

    assert caught.value.maybe_created
    assert recovered is not None
    assert recovered.id == "run_1"


async def test_active_run_is_recovered_when_no_key_is_known() -> None:
    """Without a key `recover` returns the thread's active run, or None."""
    ledger, clock = Ledger(), ManualClock()
    async with HostileServer(ledger) as server, client_of(server, clock) as client:
        before = await client.runs.recover("thread_1")
        await client.runs.create("thread_1", assistant_id="asst_1")
        active = await client.runs.recover("thread_1")
        ledger.runs[0]["status"] = "completed"
        after = await client.runs.recover("thread_1")

    assert (before, after) == (None, None)
    assert active is not None
    assert active.id == "run_1"


async def test_adopted_run_is_returned_when_it_cannot_be_fetched_alone() -> None:
    """A server that lists the run but has no GET for it: the listed one is returned."""
    ledger = Ledger(Fate(Drop()))

    def handler(request: Received) -> Action:
        alone = request.path.endswith("/run_1")
        return error(405) if alone else ledger(request)

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        run = await client.runs.create("thread_1", assistant_id="asst_1")

    assert (run.id, ledger.posts) == ("run_1", 1)
    assert is_clean(run)


async def test_doubt_is_kept_when_the_deadline_passes_in_the_middle_of_a_look() -> None:
    """The caller's time is up before it is known whether there is a run."""
    posts = Ledger(Fate(Drop()))

    def handler(request: Received) -> Action:
        return Hang() if request.method == "GET" else posts(request)

    async with HostileServer(handler) as server, client_of(server, ManualClock()) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.runs.create("thread_1", assistant_id="asst_1", timeout=0.3)

    assert caught.value.maybe_created
    assert caught.value.idempotency_key == "key-0"
    assert [request.method for request in server.requests] == ["POST", "GET"]
