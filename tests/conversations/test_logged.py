"""What is logged of replies, and with which ids."""

from __future__ import annotations

import logging

import pytest

from openai_runs import RunFailed
from openai_runs.server import Fail
from tests.conversations.talking import KEY, Bot, shown, until_abandoned_ends

LOGGER = "openai_runs.conversations"


async def test_each_reply_is_logged_with_its_ids(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it is answered or fails; never with its text."""
    bot.model.add("answer", Fail())

    with caplog.at_level(logging.INFO, LOGGER):
        async with bot.conversations() as conversations:
            reply = conversations.reply(KEY, "secret")
            await shown(reply)
            with pytest.raises(RunFailed):
                await shown(conversations.reply(KEY, "secret"))

    first, second = [one for one in caplog.records if one.name == LOGGER]
    assert first.message == 'message 1 of conversation ["ada",7]: completed'
    assert second.message == 'message 2 of conversation ["ada",7]: failed'
    assert reply.run is not None
    assert vars(first)["run_id"] == reply.run.id
    assert vars(first)["thread_id"] == vars(second)["thread_id"] == reply.run.thread_id


async def test_abandoned_message_that_fails_is_logged_with_its_ids(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """As the error names them."""
    bot.model.add(Fail())
    async with bot.record() as change:
        await change(lambda record: record.add("1", "dead", 0.0))
    await until_abandoned_ends(bot)

    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "was not answered" in record.message
    assert vars(record)["run_id"].startswith("run_")
    assert vars(record)["thread_id"].startswith("thread_")
