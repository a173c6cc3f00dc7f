"""The tool loop against servers that lag, lose, reject and repeat: each call is answered once.

Each claim is tested for a run that is polled and for one that is streamed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from openai_runs import (
    APIConnectionError,
    APIStatusError,
    AsyncClient,
    BadRequestError,
    PollPolicy,
    RunResult,
    ToolError,
)
from tests.client.ledger import LOSSES, error, patience
from tests.support import Action, Answer, Drop, HostileServer, ManualClock, Received, run_json

PATH = "/submit_tool_outputs"
NOT_WAITING = error(400, 'Runs in status "queued" do not accept tool outputs.')


def call(call_id: str, name: str = "count", arguments: str = "{}") -> dict[str, Any]:
    """Return a function call that waits."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def waiting(*calls: dict[str, Any], kind: str = "submit_tool_outputs") -> dict[str, Any]:
    """Return a run that waits for these calls."""
    action = {"type": kind, "submit_tool_outputs": {"tool_calls": list(calls)}}
    return run_json("requires_action", required_action=action)


class OneRun:
    """A server with one run, whose GETs and submits go by a script; the last GET holds on."""

    def __init__(self, *polls: dict[str, Any], submits: Iterable[Action] = ()) -> None:
        """Take the states that GETs show, and the answers to submits."""
        self.polls = list(polls)
        self.submits = iter(submits)

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        if request.method == "POST":
            answer = Answer(json=run_json("queued"))
            return next(self.submits, answer) if request.path.endswith(PATH) else answer
        if request.path.endswith(("/messages", "/steps")):
            return Answer(json={"object": "list", "data": [], "has_more": False})
        return Answer(json=self.polls.pop(0) if len(self.polls) > 1 else self.polls[0])


class Counter:
    """A tool that counts how often it is called."""

    def __init__(self) -> None:
        """Start at 0."""
        self.calls = 0

    def count(self, number: int = 0) -> int:
        """Return how often it was called."""
        self.calls += 1
        return self.calls


Finish = Callable[..., Awaitable[RunResult]]
"""Takes a server's run to its end; its tools are answered by a counter."""


def client_of(server: HostileServer, options: dict[str, Any]) -> AsyncClient:
    """Return a client whose pauses take no time."""
    settings: dict[str, Any] = {"poll": PollPolicy(long_poll=0)}
    settings["request_timeout"] = options.pop("request_timeout", 30.0)
    return AsyncClient(server.url, seams=ManualClock().runtime(), **settings)


async def polled(server: HostileServer, counter: Counter, **options: Any) -> RunResult:
    """Poll the run."""
    async with client_of(server, options) as client:
        return await client.runs.resume(
            "run_1", thread_id="thread_1", tools=[counter.count], **options
        )


async def streamed(server: HostileServer, counter: Counter, **options: Any) -> RunResult:
    """Stream the run."""
    async with (
        client_of(server, options) as client,
        client.runs.stream(
            "thread_1", assistant_id="asst_1", tools=[counter.count], **options
        ) as stream,
    ):
        return await stream.result()


@pytest.fixture(params=[polled, streamed], ids=["polled", "streamed"])
def finish(request: pytest.FixtureRequest) -> Finish:
    """Return each of the two ways in which a run is brought to its end: the loop is the same."""
    way: Finish = request.param
    return way


def submitted(server: HostileServer) -> list[list[tuple[str, str]]]:
    """Return, for each submit, the ids and outputs it carried."""
    return [
        [(one["tool_call_id"], one["output"]) for one in request.json["tool_outputs"]]
        for request in server.seen("POST", PATH)
    ]


async def test_id_that_comes_twice_is_answered_once(finish: Finish) -> None:
    """The first of them is called."""
    handler = OneRun(
        waiting(call("call_1"), call("call_2"), call("call_1", arguments='{"number": 1}')),
        run_json("completed"),
    )
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter)

    assert result.run.status == "completed"
    assert counter.calls == 2
    (outputs,) = submitted(server)
    assert [call_id for call_id, _ in outputs] == ["call_1", "call_2"]


async def test_call_of_an_unknown_kind_is_answered_with_an_error(finish: Finish) -> None:
    """It has an id, so the run waits for it; one without an id cannot be answered."""
    foreign = {"id": "call_m", "type": "mcp", "mcp": {"server": "s"}}
    handler = OneRun(waiting(foreign, call("call_1"), {"type": "odd"}), run_json("completed"))
    async with HostileServer(handler) as server:
        await finish(server, Counter())

    refusal = """{"error":"tool calls of type 'mcp' cannot be answered here"}"""
    assert submitted(server) == [[("call_m", refusal), ("call_1", "1")]]


ARGUMENTS: dict[str, tuple[str, str]] = {
    "raw line break": ('{"number":\n7,"text":"a\nb"}', "a\nb"),
    "fence": ('```json\n{"text": "a"}\n```', "a"),
    "comma": ('{"text": "a",}', "a"),
    "two objects": ('{"text": "a"}{"text": "b"}', "do not fit"),
    "cut off": ('{"text": "a', "do not fit"),
}


@pytest.mark.parametrize(("arguments", "output"), ARGUMENTS.values(), ids=ARGUMENTS)
async def test_function_is_called_where_its_arguments_have_one_reading(
    arguments: str, output: str
) -> None:
    """Else the model gets an error for its output, and may write them again."""

    def note(text: str, number: int = 0) -> str:
        return text

    handler = OneRun(waiting(call("call_1", "note", arguments)), run_json("completed"))
    async with HostileServer(handler) as server, client_of(server, {}) as client:
        await client.runs.resume("run_1", thread_id="thread_1", tools=[note])

    (((_, said),),) = submitted(server)
    assert output in said
    assert ("error" in said) is (output == "do not fit")


@pytest.mark.parametrize(
    "run", [waiting(), waiting({"type": "odd"}), run_json("requires_action")], ids=str
)
async def test_run_that_waits_for_nothing_known_is_a_result(
    finish: Finish, run: dict[str, Any]
) -> None:
    """There is nothing to answer: the caller sees what it waits for."""
    async with HostileServer(OneRun(run)) as server:
        result = await finish(server, Counter())

    assert result.run.needs_action
    assert submitted(server) == []


async def test_run_of_an_unknown_status_is_a_result(finish: Finish) -> None:
    """No list of ours can know it."""
    async with HostileServer(OneRun(run_json("paused_for_review"))) as server:
        result = await finish(server, Counter())

    assert result.run.status == "paused_for_review"


async def test_lagging_replica_is_not_answered_twice(finish: Finish) -> None:
    """After the submit it still shows the run as it was: the loop polls again, and that is all."""
    before = waiting(call("call_1"))
    handler = OneRun(before, before, before, run_json("in_progress"), run_json("completed"))
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter)

    assert result.run.status == "completed"
    assert counter.calls == 1
    assert submitted(server) == [[("call_1", "1")]]


async def test_outputs_that_did_not_stay_are_sent_again_and_not_made_again(finish: Finish) -> None:
    """The server accepted them, and asks for the same calls still: it gets the same outputs."""
    before = waiting(call("call_1"))
    handler = OneRun(*[before] * 5, run_json("completed"))
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter)

    assert result.run.status == "completed"
    assert counter.calls == 1
    assert submitted(server) == [[("call_1", "1")]] * 2


async def test_server_that_never_stops_asking_for_the_same_is_given_up(finish: Finish) -> None:
    """It accepts the outputs each time, and asks again."""
    async with HostileServer(OneRun(waiting(call("call_1")))) as server:
        with pytest.raises(ToolError, match="still requests outputs that were submitted 3 times"):
            await finish(server, Counter())

    assert submitted(server) == [[("call_1", "1")]] * 3


async def test_refusal_after_a_submit_that_was_accepted_is_a_lagging_replica(
    finish: Finish,
) -> None:
    """The second submit is refused because the first one worked."""
    before = waiting(call("call_1"))
    replies: list[Action] = [Answer(json=run_json("queued")), NOT_WAITING]
    handler = OneRun(*[before] * 6, run_json("completed"), submits=replies)
    async with HostileServer(handler) as server:
        result = await finish(server, Counter())

    assert result.run.status == "completed"


@pytest.mark.parametrize("status", ["expired", "cancelled", "cancelling", "completed", "queued"])
@pytest.mark.parametrize("refusal", [NOT_WAITING, error(409)], ids=["400", "409"])
async def test_refused_submit_is_no_error_where_the_run_has_moved_on(
    finish: Finish, refusal: Action, status: str
) -> None:
    """It has ended, or somebody else has answered: the run says how it goes on."""
    end = "cancelled" if status == "cancelling" else "completed" if status == "queued" else status
    handler = OneRun(waiting(call("call_1")), run_json(status), run_json(end), submits=[refusal])
    async with HostileServer(handler) as server:
        result = await finish(server, Counter())

    assert result.run.status == end
    assert len(submitted(server)) == 1


async def test_refused_submit_is_an_error_where_the_run_still_waits(finish: Finish) -> None:
    """The outputs are wrong for this server: no endless try, no second call."""
    refused = error(400, "'tool_outputs' too large")
    handler = OneRun(waiting(call("call_1")), submits=[refused] * 9)
    counter = Counter()
    async with HostileServer(handler) as server:
        with pytest.raises(BadRequestError, match="too large") as caught:
            await finish(server, counter)

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")
    assert counter.calls == len(submitted(server)) == 1


async def test_answers_of_another_are_not_overwritten(finish: Finish) -> None:
    """Refused since another has answered, and the model asks for others: those are answered."""
    handler = OneRun(
        waiting(call("call_1")),
        *[waiting(call("call_2"))] * 2,
        run_json("completed"),
        submits=[NOT_WAITING],
    )
    async with HostileServer(handler) as server:
        await finish(server, Counter())

    assert submitted(server) == [[("call_1", "1")], [("call_2", "2")]]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_outputs_whose_reply_is_lost_are_sent_once_where_they_arrived(
    finish: Finish, loss: Action
) -> None:
    """The run is polled before anything is sent again, on a server without keys."""
    handler = OneRun(
        waiting(call("call_1")),
        run_json("in_progress"),
        run_json("completed"),
        submits=[loss],
    )
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter, request_timeout=patience(loss))

    assert result.run.status == "completed"
    assert counter.calls == len(submitted(server)) == 1


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
async def test_outputs_whose_reply_is_lost_are_sent_again_where_they_did_not_arrive(
    finish: Finish,
    loss: Action,
) -> None:
    """The same outputs: the tool is not called again."""
    before = waiting(call("call_1"))
    handler = OneRun(before, before, run_json("completed"), submits=[loss])
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter, request_timeout=patience(loss))

    assert result.run.status == "completed"
    assert counter.calls == 1
    assert submitted(server) == [[("call_1", "1")]] * 2


async def test_server_that_is_away_for_a_while_gets_the_outputs_later(finish: Finish) -> None:
    """Longer than a call's retries last; the wait tolerates it, and the outputs are kept."""
    down = 12

    def handler(request: Received) -> Action:
        nonlocal down
        if server.seen("POST", PATH) and down > 0:
            down -= 1
            return Drop()
        return one(request)

    one = OneRun(*[waiting(call("call_1"))] * 5, run_json("completed"))
    counter = Counter()
    async with HostileServer(handler) as server:
        result = await finish(server, counter)

    assert (result.run.status, counter.calls, down) == ("completed", 1, 0)
    assert {tuple(outputs) for outputs in submitted(server)} == {(("call_1", "1"),)}


GONE: dict[str, tuple[Callable[[], Action], type[Exception]]] = {
    "403": (lambda: error(403), APIStatusError),
    "500": (lambda: error(500), APIStatusError),
}


@pytest.mark.parametrize(("reject", "kind"), GONE.values(), ids=GONE)
async def test_submit_that_never_works_is_an_error(
    finish: Finish, reject: Callable[[], Action], kind: type[Exception]
) -> None:
    """At once where it is not transient, else after a few tries; the tool is called once."""
    before = waiting(call("call_1"))
    handler = OneRun(before, submits=[reject()] * 99)
    counter = Counter()
    async with HostileServer(handler) as server:
        with pytest.raises(kind):
            await finish(server, counter)

    assert counter.calls == 1
    assert len(submitted(server)) < 12


async def test_server_that_is_gone_for_good_is_an_error(finish: Finish) -> None:
    """The wait gives it up after its own limit."""

    def handler(request: Received) -> Action:
        return Drop() if server.seen("POST", PATH) else OneRun(waiting(call("call_1")))(request)

    async with HostileServer(handler) as server:
        with pytest.raises(APIConnectionError) as caught:
            await finish(server, Counter())

    assert (caught.value.thread_id, caught.value.run_id) == ("thread_1", "run_1")


async def test_ids_that_are_numbered_anew_in_each_round_are_calls_of_their_own(
    finish: Finish,
) -> None:
    """Some models call every first call `call_0`: what is asked tells them apart."""
    handler = OneRun(
        waiting(call("call_0", arguments='{"number": 1}')),
        waiting(call("call_0", arguments='{"number": 2}')),
        run_json("completed"),
    )
    async with HostileServer(handler) as server:
        await finish(server, Counter())

    assert submitted(server) == [[("call_0", "1")], [("call_0", "2")]]


async def test_submit_carries_what_the_call_was_told_to_carry() -> None:
    """Extra headers and query reach every request, the extra body only the create."""
    handler = OneRun(waiting(call("call_1")), run_json("completed"))
    async with (
        HostileServer(handler) as server,
        AsyncClient(server.url, seams=ManualClock().runtime()) as client,
    ):
        await client.runs.run_tools(
            "thread_1",
            assistant_id="asst_1",
            tools=[Counter().count],
            extra_headers={"X-Tenant": "t"},
            extra_query={"q": "1"},
            extra_body={"foreign": 1},
        )

    create = server.requests[0]
    (submit,) = server.seen("POST", PATH)
    assert {one.headers["x-tenant"] for one in server.requests} == {"t"}
    assert all(one.query["q"] == ["1"] for one in server.requests)
    assert create.json["foreign"] == 1
    assert submit.json == {"tool_outputs": [{"tool_call_id": "call_1", "output": "1"}]}
