"""Tool outputs and cancels whose answer was lost are settled by looking at the run."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs import APIError, AsyncClient, BadRequestError, NotFoundError
from tests.client.ledger import LOSSES, error, patience
from tests.support import Action, Answer, Drop, HostileServer, ManualClock, Received, run_json

OUTPUTS = [{"tool_call_id": "call_1", "output": "42"}]


def client_of(server: HostileServer, **options: Any) -> AsyncClient:
    """Return a client whose pauses take no time."""
    return AsyncClient(server.url, seams=ManualClock().runtime(), **options)


def waiting_for(*calls: str) -> dict[str, Any]:
    """Return a run that waits for the outputs of these calls."""
    functions = [
        {"id": call, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for call in calls
    ]
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": functions}}
    return run_json("requires_action", required_action=action)


class OneRun:
    """A server with one run; its POSTs go as told."""

    def __init__(self, run: dict[str, Any], *steps: tuple[Action | None, dict[str, Any]]) -> None:
        """Take the run and, for each POST, what is answered and what becomes of the run.

        An answer of None is the proper one.
        """
        self.run = run
        self.steps = list(steps)

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        if request.method == "POST":
            answer, self.run = self.steps.pop(0)
            if answer is not None:
                return answer
        return Answer(json=self.run)


async def submit(client: AsyncClient) -> Any:
    """Submit the outputs."""
    return await client.runs.submit_tool_outputs(
        "run_1", thread_id="thread_1", tool_outputs=OUTPUTS
    )


async def cancel(client: AsyncClient) -> Any:
    """Cancel the run."""
    return await client.runs.cancel("run_1", thread_id="thread_1")


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_outputs_are_sent_once_when_they_landed(loss: Action) -> None:
    """The run no longer waits for these calls: the outputs are there, and so is the run."""
    handler = OneRun(waiting_for("call_1"), (loss, run_json("queued")))
    async with (
        HostileServer(handler) as server,
        client_of(server, request_timeout=patience(loss)) as client,
    ):
        run = await submit(client)

    assert run.status == "queued"
    assert len(server.seen("POST")) == 1


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_outputs_are_sent_again_when_they_did_not_land(loss: Action) -> None:
    """The run still waits for these very calls: nothing can happen twice."""
    before = waiting_for("call_1")
    handler = OneRun(before, (loss, before), (None, run_json("queued")))
    async with (
        HostileServer(handler) as server,
        client_of(server, request_timeout=patience(loss)) as client,
    ):
        run = await submit(client)

    assert run.status == "queued"
    first, second = server.seen("POST")
    assert first.body == second.body


async def test_outputs_are_not_sent_again_when_the_run_already_asks_for_others() -> None:
    """They landed, and the model has asked again since: that is the run to return."""
    handler = OneRun(waiting_for("call_1"), (Drop(), waiting_for("call_2")))
    async with HostileServer(handler) as server, client_of(server) as client:
        run = await submit(client)

    assert [call.id for call in run.tool_calls] == ["call_2"]
    assert len(server.seen("POST")) == 1


async def test_refusal_of_the_second_submit_is_success_when_the_first_landed_late() -> None:
    """The first request arrived after the look: the second is refused, the run goes on."""
    refused = error(400, 'Runs in status "queued" do not accept tool outputs.')
    before = waiting_for("call_1")
    handler = OneRun(before, (Drop(), before), (refused, run_json("queued")))
    async with HostileServer(handler) as server, client_of(server) as client:
        run = await submit(client)

    assert run.status == "queued"
    assert len(server.seen("POST")) == 2


async def test_refusal_of_the_second_submit_is_an_error_when_the_run_still_waits() -> None:
    """The outputs are wrong, and were so the first time."""
    refused = error(400, "Expected tool outputs for call_ids ['call_1', 'call_2'], got ['call_1']")
    before = waiting_for("call_1", "call_2")
    handler = OneRun(before, (Drop(), before), (refused, before))
    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(BadRequestError, match="Expected tool outputs"):
            await submit(client)


async def test_refusal_of_the_first_submit_is_an_error_at_once() -> None:
    """Nothing was in doubt, so nothing is looked at."""
    refused = error(400, 'Runs in status "completed" do not accept tool outputs.')
    handler = OneRun(run_json("completed"), (refused, run_json("completed")))
    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(BadRequestError) as caught:
            await submit(client)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert len(server.requests) == 1


@pytest.mark.parametrize("act", [submit, cancel], ids=["submit", "cancel"])
async def test_nothing_is_sent_again_when_the_run_cannot_be_looked_at(act: Any) -> None:
    """The doubt stays, and is raised."""

    def handler(request: Received) -> Action:
        return error(500) if request.method == "POST" else error(403)

    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(APIError) as caught:
            await act(client)

    assert caught.value.maybe_created
    assert caught.value.status_code == 500
    assert len(server.seen("POST")) == 1


@pytest.mark.parametrize("act", [submit, cancel], ids=["submit", "cancel"])
async def test_look_uses_the_headers_of_the_call(act: Any) -> None:
    """What the call needed to pass a gateway, the look needs as well."""
    handler = OneRun(waiting_for("call_1"), (Drop(), run_json("cancelling")))
    async with HostileServer(handler) as server, client_of(server) as client:
        tenant = client.with_options(default_headers={"X-Tenant": "t"})
        await act(tenant)

    assert [request.headers.get("x-tenant") for request in server.requests] == ["t", "t"]


@pytest.mark.parametrize("status", ["cancelling", "cancelled"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
async def test_cancel_is_sent_once_when_it_landed(loss: Action, status: str) -> None:
    """The run is on its way out: that is what was asked for."""
    handler = OneRun(run_json("in_progress"), (loss, run_json(status)))
    async with (
        HostileServer(handler) as server,
        client_of(server, request_timeout=patience(loss)) as client,
    ):
        run = await cancel(client)

    assert run.status == status
    assert len(server.seen("POST")) == 1


async def test_cancel_is_sent_again_when_it_did_not_land() -> None:
    """The run is still at work."""
    before = run_json("in_progress")
    handler = OneRun(before, (Drop(), before), (None, run_json("cancelling")))
    async with HostileServer(handler) as server, client_of(server) as client:
        run = await cancel(client)

    assert run.status == "cancelling"
    assert len(server.seen("POST")) == 2


async def test_refusal_of_the_second_cancel_is_success_when_the_first_landed_late() -> None:
    """The second is refused because the run is cancelled."""
    refused = error(400, "Cannot cancel run with status 'cancelled'.")
    before = run_json("in_progress")
    handler = OneRun(before, (Drop(), before), (refused, run_json("cancelled")))
    async with HostileServer(handler) as server, client_of(server) as client:
        run = await cancel(client)

    assert run.status == "cancelled"


async def test_cancel_is_refused_when_the_run_completed_first() -> None:
    """The work won the race: the server's own text says so."""
    refused = error(400, "Cannot cancel run with status 'completed'.")
    done = run_json("completed")
    handler = OneRun(run_json("in_progress"), (Drop(), done), (refused, done))
    async with HostileServer(handler) as server, client_of(server) as client:
        with pytest.raises(BadRequestError, match="completed"):
            await cancel(client)


@pytest.mark.parametrize("name", ["threads", "messages", "assistants"])
@pytest.mark.parametrize("first", [Drop(), error(500)], ids=["drop", "500"])
async def test_delete_told_404_at_the_second_try_is_success(name: str, first: Action) -> None:
    """What the first try may have deleted counts as deleted; a first 404 is an error."""
    ids = {"thread_id": "thread_1"} if name == "messages" else {}
    answers: list[Action] = [first, error(404), error(404)]
    async with HostileServer(lambda _: answers.pop(0)) as server, client_of(server) as client:
        deleted = await getattr(client, name).delete("x_1", **ids)
        with pytest.raises(NotFoundError):
            await getattr(client, name).delete("x_1", **ids)

    assert (deleted.id, deleted.deleted) == ("x_1", True)
    assert deleted.object.endswith(".deleted")
