"""Where a conversation is, as its status says."""

from __future__ import annotations

import anyio
import pytest

from openai_runs.conversations import DuplicateMessageError, Status
from openai_runs.conversations.record import Claim, Message, Record
from openai_runs.server import Hang
from tests.conversations.talking import KEY, Bot, shown

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


async def test_message_that_is_delivered_twice_has_one_reply(bot: Bot) -> None:
    """The second one raises at once, in another process as well, and blocks nobody."""
    bot.model.add("answer", "next")

    async with bot.conversations() as one, bot.conversations() as other:
        assert await shown(one.reply(KEY, "1", idempotency_key="m1")) == ["answer"]
        with pytest.raises(DuplicateMessageError):
            await shown(other.reply(KEY, "1", idempotency_key="m1"))
        assert await shown(other.reply(KEY, "1", idempotency_key="m2")) == ["next"]

    assert await bot.texts() == ["1", "answer", "1", "next"]


def test_keys_of_the_last_100_messages_are_remembered() -> None:
    """A record does not grow for ever."""
    record = Record()
    for number in range(150):
        assert record.add("text", "a", 9.0, str(number))

    assert record.add("text", "a", 9.0, "50") == 0
    assert record.add("text", "a", 9.0, "49") == 151
    assert len(record.keys) == 100


def test_status_says_in_its_help_what_each_of_its_fields_is() -> None:
    """Where `help` itself has only their numbers."""
    assert Status.__doc__ is not None
    for name in Status._fields:
        assert f"{name}: " in Status.__doc__
