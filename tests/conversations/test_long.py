"""Messages that are longer than the API takes."""

from __future__ import annotations

import pytest

from openai_runs import APIStatusError
from openai_runs.config import MAX_MESSAGE_CHARS, MAX_REQUEST_BYTES
from openai_runs.conversations.record import Record
from tests.conversations.talking import KEY, Bot, shown

TOO_LONG = "a" * (MAX_REQUEST_BYTES + 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("a" * MAX_MESSAGE_CHARS, 1, id="as-long-as-may-be"),
        pytest.param("a" * (MAX_MESSAGE_CHARS + 1), 2, id="one-more"),
        pytest.param("Word after word. " * (3 * MAX_MESSAGE_CHARS // 17), 3, id="words"),
        pytest.param("\u00e4" * (2 * MAX_MESSAGE_CHARS), 2, id="two-bytes-each"),
    ],
)
async def test_message_longer_than_the_api_takes_is_sent_in_several(
    bot: Bot, text: str, wanted: int
) -> None:
    """One run answers them all, and nothing of the text is missing."""
    bot.model.add("read")

    async with bot.conversations() as conversations:
        assert await shown(conversations.reply(KEY, text)) == ["read"]

    *sent, answer = await bot.texts()
    assert answer == "read"
    assert len(sent) == wanted
    assert all(len(one) <= MAX_MESSAGE_CHARS for one in sent)
    assert "".join(sent) == text
    assert all(one.endswith(" ") for one in sent if " " in one)


async def test_message_larger_than_a_request_is_an_error_and_the_next_one_is_answered(
    bot: Bot,
) -> None:
    """It is forgotten."""
    bot.model.add("b")

    async with bot.conversations() as conversations:
        with pytest.raises(APIStatusError, match="too large"):
            await shown(conversations.reply(KEY, TOO_LONG))
        assert await shown(conversations.reply(KEY, "2")) == ["b"]

    assert await bot.texts() == ["2", "b"]


async def leave_too_long_a_message(bot: Bot) -> None:
    """Have a killed process leave a message that no request can carry."""

    def begin(record: Record) -> None:
        record.add(TOO_LONG, "killed", 1.0)
        record.begin(1, "killed", now=0.0, until=1.0, key="key", together=False)

    async with bot.record() as change:
        await change(begin)


async def test_message_too_large_that_a_killed_bot_left_blocks_nobody(bot: Bot) -> None:
    """The server would refuse it at each start; the messages after it are answered."""
    bot.model.add("b")
    await leave_too_long_a_message(bot)

    async with bot.conversations() as conversations:
        assert await shown(conversations.reply(KEY, "2")) == ["b"]


async def test_abandoned_message_that_is_too_large_is_tried_once(bot: Bot) -> None:
    """Its reply says why, and nothing is left in the conversation."""
    await leave_too_long_a_message(bot)

    async with bot.conversations() as conversations:
        async for reply in conversations.abandoned():
            with pytest.raises(APIStatusError, match="too large"):
                await shown(reply)
            break
        assert not (await conversations.status(KEY)).is_busy
