"""The states of a stream: the table of moves, and that no server leads a session out of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from openai_runs import AsyncClient, OpenAIRunsError, PollPolicy, RetryPolicy
from openai_runs._client.streams import session as session_module
from openai_runs._client.streams.session import FINAL, MOVES, State, StreamSession
from tests.client.broadcaster import DONE, HEAD, delta, frame, message_json, step_json
from tests.client.streams.test_session_tool_rounds import page, waiting
from tests.support import Action, Answer, Drop, HostileServer, Raw, Received, run_json

AT_ONCE: dict[str, Any] = {
    "retry": RetryPolicy(initial=0, maximum=0),
    "poll": PollPolicy(initial=0, maximum=0),
}


def reachable(start: State) -> set[State]:
    """Return the states that can follow, after any number of moves."""
    reached: set[State] = set()
    front = {start}
    while front:
        front = set().union(*(MOVES[state] for state in front)) - reached
        reached |= front
    return reached


def test_every_state_can_be_reached_and_left_for_an_end() -> None:
    """Each state follows from NEW, and none but the final ones is a dead end."""
    assert MOVES.keys() == set(State)
    assert reachable(State.NEW) == set(State) - {State.NEW}
    for state in set(State) - FINAL:
        assert reachable(state) & FINAL


def test_stream_can_be_left_in_every_state() -> None:
    """One move leads to an end: `close` needs no other."""
    assert {state for state in State if not MOVES[state] & FINAL} == FINAL


def test_moves_in_the_docstring_are_those_of_the_table() -> None:
    """The diagram at the top of the module leaves out only what it says in words: CLOSED."""
    lines = re.findall(r"^    ([A-Z]+) +-> ([A-Z |]+)$", session_module.__doc__ or "", re.MULTILINE)
    drawn = {State[state]: {State[name] for name in names.split(" | ")} for state, names in lines}
    closable = set(State) - FINAL - {State.DRAINING}

    assert drawn == {state: MOVES[state] - {State.CLOSED} for state in set(State) - FINAL}
    assert {state for state in State if State.CLOSED in MOVES[state]} == closable


def session_in(*states: State) -> StreamSession:
    """Return a session that has made these moves."""
    client = AsyncClient(base_url="http://127.0.0.1:9/v1", api_key="k")
    session = client.runs.stream("thread_1", assistant_id="a")._session
    for state in states:
        session._move(state)
    return session


@given(st.lists(st.sampled_from(State), min_size=1, max_size=12))
def test_move_that_is_not_in_the_table_is_an_assertion_error(walk: list[State]) -> None:
    """Any walk: each legal move is made, each other one leaves the state as it was."""
    session = session_in()
    for state in walk:
        before = session.state
        if state in MOVES[before]:
            session._move(state)
            assert session.state is state
        else:
            with pytest.raises(AssertionError, match=f"{before.name} -> {state.name}"):
                session._move(state)
            assert session.state is before


WALKS = {
    State.NEW: (),
    State.OPENING: (State.OPENING,),
    State.READING: (State.OPENING, State.READING),
    State.DRAINING: (State.OPENING, State.READING, State.DRAINING),
    State.ENDED: (State.OPENING, State.READING, State.ENDED),
    State.ANSWERING: (State.OPENING, State.READING, State.ENDED, State.ANSWERING),
    State.POLLING: (State.OPENING, State.READING, State.ENDED, State.POLLING),
    State.VERIFYING: (State.OPENING, State.READING, State.ENDED, State.VERIFYING),
    State.RECOVERING: (State.OPENING, State.RECOVERING),
    State.COMPLETE: (State.OPENING, State.READING, State.ENDED, State.COMPLETE),
    State.CLOSED: (State.CLOSED,),
}


@pytest.mark.parametrize("state", WALKS, ids=lambda state: state.name)
def test_close_ends_a_session_in_any_state(state: State) -> None:
    """It is complete only where the end of a request's events was known; twice is once."""
    session = session_in(*WALKS[state])

    session.close()
    end = session.state
    session.close()

    is_known = state in {State.DRAINING, State.ENDED, State.COMPLETE}
    assert end is session.state is (State.COMPLETE if is_known else State.CLOSED)
    assert session.is_exhausted


FRAMES = {
    "created": frame("thread.run.created", run_json()),
    "in_progress": frame("thread.run.in_progress", run_json("in_progress"), "1-3"),
    "other run": frame("thread.run.in_progress", run_json("in_progress", id="run_2")),
    "unknown status": frame("thread.run.paused", run_json("paused", object="thread.run")),
    "delta": frame("thread.message.delta", delta("Hel")),
    "asks": frame("thread.run.requires_action", waiting("call_1")),
    "asks again": frame("thread.run.requires_action", waiting("call_2")),
    "stray": frame("thread.run.completed", waiting("call_1")),
    "completed": frame("thread.run.completed", run_json("completed")),
    "expired": frame("thread.run.expired", run_json("expired")),
    "step": frame("thread.run.step.created", step_json()),
    "unreadable": frame("thread.run.queued", {"id": 7}),
    "error": frame("error", {"message": "no"}),
    "done": DONE,
}
REJECTED = {"error": {"message": "no"}}
JSON: list[Action] = [
    Drop(),
    Answer(400, REJECTED),
    Answer(409, REJECTED),
    Answer(503, REJECTED),
    Answer(json=run_json("queued")),
]
STORED = ["call_1", "call_1", "call_1", "call_2", "in_progress", "paused", "completed"]
FEATURES = b"openai-runs-features: idempotency, resume\r\n\r\n"

events = st.lists(st.sampled_from(list(FRAMES)), max_size=5)
streams = st.one_of(
    events, events.map(lambda names: ["created", *names]), st.just(["created", "asks", "done"])
)


def stream_with(names: list[str], head: bytes) -> Action:
    """Return a stream of these frames."""
    return Raw(HEAD + head + b"".join(FRAMES[name] for name in names))


class Scripted:
    """A server that answers by lists, whether that makes sense or not; then the run is over."""

    def __init__(self, streams: Iterable[Action], polls: Iterable[str]) -> None:
        """Answer creates, submits and follows by `streams`, and polls by `polls`."""
        self._streams = iter(streams)
        self._polls = iter(polls)

    def __call__(self, request: Received) -> Action:
        """Answer one request."""
        if request.path.endswith("/messages"):
            return page(message_json("Hello", "completed"))
        if request.path.endswith("/steps"):
            return page(step_json("completed"))
        if request.method == "POST" or request.path.endswith("/stream"):
            return next(self._streams, Answer(json=run_json("completed")))
        stored = next(self._polls, "completed")
        return Answer(json=waiting(stored) if stored[:4] == "call" else run_json(stored))


async def end_state(handler: Scripted, leave_after: int | None) -> State:
    """Stream a run with a tool, leave it after some events, and return the state at the end."""

    def peek() -> str:
        return "seen"

    async with (
        HostileServer(handler) as server,
        AsyncClient(base_url=server.url, api_key="k", **AT_ONCE) as client,
    ):
        stream = client.runs.stream("thread_1", assistant_id="a", tools=[peek])
        count = 0
        with suppress(OpenAIRunsError):
            async with stream:
                async for _ in stream:
                    count += 1
                    if leave_after is not None and count > leave_after:
                        break
            await stream.result()
        return stream._session.state


@given(
    answers=st.lists(st.one_of(st.sampled_from(JSON), streams), min_size=1, max_size=5),
    polls=st.lists(st.sampled_from(STORED), max_size=8),
    resumes=st.booleans(),
    leave_after=st.one_of(st.none(), st.none(), st.integers(0, 5)),
)
@example(  # the outputs are accepted, and asked for still: POLLING -> ENDED
    answers=[["created", "asks", "done"], Answer(json=run_json("queued"))],
    polls=["call_1"] * 3,
    resumes=False,
    leave_after=None,
)
@example(  # the outputs are rejected: ANSWERING -> POLLING
    answers=[["created", "asks", "done"], Answer(400, REJECTED)],
    polls=[],
    resumes=False,
    leave_after=None,
)
@example(  # the run goes on behind what looked like an end: DRAINING -> READING
    answers=[["created", "asks", "in_progress"]], polls=[], resumes=False, leave_after=None
)
@example(  # the last event contradicts itself: VERIFYING -> ENDED
    answers=[["created", "stray", "done"]], polls=["call_1"] * 2, resumes=False, leave_after=None
)
@example(  # cut twice, then answered by the run: RECOVERING -> READING, RECOVERING
    answers=[["created", "in_progress"], ["delta"], Answer(json=run_json("in_progress"))],
    polls=[],
    resumes=True,
    leave_after=None,
)
@settings(max_examples=120, deadline=None)
def test_no_server_leads_a_session_out_of_the_table(
    answers: list[Action | list[str]], polls: list[str], resumes: bool, leave_after: int | None
) -> None:
    """Any streams, replies and polls: the session ends in a final state, or with our error."""
    head = FEATURES if resumes else b"\r\n"
    sent = [stream_with(one, head) if isinstance(one, list) else one for one in answers]

    assert anyio.run(end_state, Scripted(sent, polls), leave_after) in FINAL
