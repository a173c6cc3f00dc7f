"""Messages that are delivered again after the first delivery failed: none is lost, none doubled."""

from __future__ import annotations

import anyio
import pytest

from openai_runs import APIConnectionError, AsyncClient, RetryPolicy, RunFailed
from openai_runs.conversations import Conversations, DuplicateMessageError
from openai_runs.server import Fail
from tests.conversations.talking import KEY, Bot, shown


async def test_message_is_answered_when_it_comes_again_after_nothing_was_created(bot: Bot) -> None:
    """A webhook that answered 500 delivers it again under the same key."""
    bot.model.add("answer")

    async with AsyncClient("http://127.0.0.1:1/v1", retry=RetryPolicy(max_retries=0)) as down:
        unreachable = Conversations(down, assistant_id=bot.assistant.id, store=bot.file)
        async with unreachable:
            for _ in range(2):
                with pytest.raises(APIConnectionError):
                    await shown(unreachable.reply(KEY, "1", idempotency_key="m1"))
    async with bot.conversations() as conversations:
        assert await shown(conversations.reply(KEY, "1", idempotency_key="m1")) == ["answer"]
        with pytest.raises(DuplicateMessageError):
            await shown(conversations.reply(KEY, "1", idempotency_key="m1"))

    assert await bot.texts() == ["1", "answer"]


async def test_message_is_answered_when_it_comes_again_after_its_caller_gave_up(bot: Bot) -> None:
    """It waited in line, and no run had it."""
    bot.model.add("a", "b")

    async with bot.conversations() as conversations:
        async with conversations.reply(KEY, "1") as first:
            with anyio.move_on_after(0.1) as scope:
                await shown(conversations.reply(KEY, "2", idempotency_key="m2"))
            assert scope.cancelled_caught
            await first.result()
        assert await shown(conversations.reply(KEY, "2", idempotency_key="m2")) == ["b"]


async def test_message_is_known_when_it_comes_again_after_its_run_failed(bot: Bot) -> None:
    """It is on the thread."""
    bot.model.add(Fail())

    async with bot.conversations() as conversations:
        with pytest.raises(RunFailed):
            await shown(conversations.reply(KEY, "1", idempotency_key="m1"))
        with pytest.raises(DuplicateMessageError):
            await shown(conversations.reply(KEY, "1", idempotency_key="m1"))
