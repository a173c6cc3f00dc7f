"""Where a conversation is, as its status says."""

from __future__ import annotations

import anyio
import pytest

from openai_runs.conversations import Status
from openai_runs.conversations.record import Claim, Message, Record
from openai_runs.server import Hang
from tests.conversations.talking import KEY, Bot

WAITS = Message(id=2, text="two", owner="b", until=9.0)
CLAIMED = Message(id=1, text="one", owner="a", until=9.0)


def claim(**facts: object) -> Claim:
    """Return a claim of one message."""
    made = Claim(1, [CLAIMED], "a", 9.0, "key")
    for name, value in facts.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        pytest.param(Record(), Status(None, None, False, []), id="new"),
        pytest.param(Record(thread_id="t"), Status("t", None, False, []), id="idle"),
        pytest.param(
            Record(thread_id="t", waiting=[WAITS]), Status("t", None, True, ["two"]), id="waits"
        ),
        pytest.param(
            Record(waiting=[WAITS], claim=claim()),
            Status(None, None, True, ["one", "two"]),
            id="begun",
        ),
        pytest.param(
            Record(thread_id="t", waiting=[WAITS], claim=claim(thread_id="t", run_id="r")),
            Status("t", "r", True, ["two"]),
            id="run-is-known",
        ),
        pytest.param(
            Record(claim=claim(thread_id="old", run_id="r", is_stopped=True, is_reset=True)),
            Status(None, None, True, []),
            id="reset",
        ),
    ],
)
def test_status_says_where_a_conversation_is(record: Record, wanted: Status) -> None:
    """A run and its thread belong together; a message waits until a run has it."""
    assert record.status() == wanted


async def test_status_is_that_of_all_processes(bot: Bot) -> None:
    """And the reply at work has the run, and its stream."""
    bot.model.add(Hang("Well, "))

    async with bot.conversations() as one, bot.conversations() as other:
        assert one.client is bot.client
        reply = one.reply(KEY, "Hello")
        assert reply.stream is None
        async with reply:
            while (status := await other.status(KEY)).run_id is None:
                await anyio.sleep(0.01)
                assert reply.stream is not None
                await anext(reply.stream)
            assert reply.run is not None
            assert (status.run_id, status.thread_id) == (reply.run.id, reply.run.thread_id)
            assert status.is_busy
        assert await other.status(KEY) == Status(status.thread_id, None, False, [])
