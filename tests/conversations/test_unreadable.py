"""Records that cannot be read, as of an older version: who gets the error, and how to go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from openai_runs import OpenAIRunsError
from openai_runs.conversations import Conversations, Entry, SQLiteStore, UnreadableRecordError
from tests.conversations.talking import KEY, Bot, shown

RECORDS = [
    pytest.param(b"{", id="cut"),
    pytest.param(b"\xff", id="no-json"),
    pytest.param(b'{"last_id":"one"}', id="other-type"),
    pytest.param(b'{"waiting":[{"id":1,"text":null,"owner":"a","until":0}]}', id="text-of-a-photo"),
    pytest.param(b'{"claim":{"lead":1}}', id="field-is-missing"),
    pytest.param(b'{"waiting":' + b"[" * 100_000, id="nested-too-deep"),
]


async def written(file: Path, data: bytes) -> None:
    """Have the conversation's record be these bytes."""
    store = SQLiteStore(file)
    await store.change('["ada",7]', lambda _: (Entry(data, is_open=True), None))
    await store.aclose()


async def ask(conversations: Conversations) -> object:
    """Send a message."""
    return await shown(conversations.reply(KEY, "hi"))


@pytest.mark.parametrize("data", RECORDS)
@pytest.mark.parametrize(
    "act",
    [
        pytest.param(ask, id="reply"),
        pytest.param(lambda conversations: conversations.status(KEY), id="status"),
        pytest.param(lambda conversations: conversations.stop(KEY), id="stop"),
    ],
)
async def test_record_that_cannot_be_read_is_an_error_that_names_key_and_next_step(
    bot: Bot, data: bytes, act: Callable[[Conversations], Awaitable[object]]
) -> None:
    """It is one of ours, so that a bot that catches those goes on."""
    await written(bot.file, data)

    async with bot.conversations() as conversations:
        with pytest.raises(UnreadableRecordError) as caught:
            await act(conversations)

    assert isinstance(caught.value, OpenAIRunsError)
    assert str(caught.value).startswith('the record of conversation ["ada",7] in SQLiteStore(')
    assert "await conversations.reset(('ada', 7)) replaces it by an empty one" in str(caught.value)


@pytest.mark.parametrize("data", RECORDS)
async def test_reset_replaces_a_record_that_cannot_be_read(
    bot: Bot, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is lost by that is logged."""
    bot.model.add("fresh")
    await written(bot.file, data)

    async with bot.conversations() as conversations:
        await conversations.reset(KEY)
        assert await ask(conversations) == ["fresh"]

    (logged,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert logged.startswith('the record of conversation ["ada",7] could not be read')
    assert f"{len(data)} bytes" in logged


async def test_reset_keeps_a_record_that_can_be_read(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of messages stay known after a reset: a message delivered again is a duplicate."""
    bot.model.add("answer")

    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "hi", idempotency_key="a"))
        await conversations.reset(KEY)

    async with bot.record() as change:
        assert len(await change(lambda record: record.keys)) == 1
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
