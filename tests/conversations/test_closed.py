"""What becomes of replies that are open in other tasks while their conversations are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import anyio
import pytest

from openai_runs.conversations import Conversations, LeaseLostError, Reply
from openai_runs.conversations.record import Record
from openai_runs.server import Call, CallTools, Say
from tests.conversations.crowd import until
from tests.conversations.talking import KEY, Bot, shown

SLOW = Say("one two three four", chunk=4, pause=0.3)


async def close_during(
    bot: Bot, is_reached: Callable[[Record], bool], *texts: str, tools: list[object] | None = None
) -> list[str]:
    """Close conversations once the record is as wanted; return how the replies ended."""
    ends: list[str] = []

    async def handle(reply: Reply) -> None:
        try:
            await shown(reply)
        except LeaseLostError as error:
            ends.append(str(error))

    async with anyio.create_task_group() as tasks, bot.record() as change:
        async with bot.conversations(tools=tools) as conversations:
            for text in texts:
                tasks.start_soon(handle, conversations.reply(KEY, text))
                await until(partial(change, partial(is_added, text=text)), 20)
            await until(partial(change, is_reached), 20)
        assert len(ends) == len(texts)
    return ends


def is_added(record: Record, text: str) -> bool:
    """Return whether a message has come."""
    claimed = record.claim.messages if record.claim is not None else []
    return text in [message.text for message in (*claimed, *record.waiting)]


def is_running(record: Record) -> bool:
    """Return whether a run is at work."""
    return record.claim is not None and record.claim.run_id is not None


async def answers_of(conversations: Conversations, count: int) -> list[str]:
    """Return the answers to what is left."""
    answers: list[str] = []
    async for reply in conversations.abandoned():
        answers += (await shown(reply))[-1:]
        if len(answers) == count:
            break
    return answers


async def test_open_reply_is_left_to_the_next_start_when_conversations_are_closed(bot: Bot) -> None:
    """Its run goes on, and `abandoned` finds its answer at once, whatever the lease."""
    bot.model.add(SLOW)

    (end,) = await close_during(bot, is_running, "1")
    assert "conversations were closed" in end

    async with bot.conversations() as conversations:
        assert await answers_of(conversations, 1) == ["one two three four"]
    assert await bot.texts() == ["1", "one two three four"]


async def test_waiting_messages_are_left_when_conversations_are_closed(bot: Bot) -> None:
    """They are answered together, after the run that was at work."""
    bot.model.add(SLOW, "to those behind")

    assert len(await close_during(bot, is_running, "1", "2", "3")) == 3

    async with bot.conversations() as conversations:
        assert await answers_of(conversations, 2) == ["one two three four", "to those behind"]
    assert await bot.texts() == ["1", "one two three four", "2", "3", "to those behind"]


async def test_reply_that_has_just_begun_is_left_when_conversations_are_closed(bot: Bot) -> None:
    """Whether or not its run has been created, its message is answered once."""
    bot.model.add(SLOW)

    await close_during(bot, lambda record: record.is_open, "1")

    async with bot.conversations() as conversations:
        assert await answers_of(conversations, 1) == ["one two three four"]
    assert await bot.texts() == ["1", "one two three four"]


async def test_tool_calls_are_left_when_conversations_are_closed(bot: Bot) -> None:
    """A function at work is cancelled, and called again at the next start."""
    bot.model.add(CallTools([Call("weather", {"city": "Oslo"})]), "done")
    called = anyio.Event()
    calls: list[str] = []

    async def weather(city: str) -> str:
        """Return the weather of a city."""
        calls.append(city)
        if len(calls) == 1:
            called.set()
            await anyio.sleep_forever()
        return f"sunny in {city}"

    await close_during(bot, lambda record: called.is_set(), "1", tools=[weather])

    async with bot.conversations(tools=[weather]) as conversations:
        assert await answers_of(conversations, 1) == ["done"]
    assert calls == ["Oslo", "Oslo"]


async def test_message_that_comes_after_the_close_is_left(bot: Bot) -> None:
    """And the same conversations may be entered again."""
    bot.model.add("at last")
    conversations = bot.conversations()

    async with conversations:
        pass
    with pytest.raises(LeaseLostError):
        await shown(conversations.reply(KEY, "1"))
    assert [reply async for reply in conversations.abandoned()] == []
    await conversations.aclose()

    async with conversations:
        assert await answers_of(conversations, 1) == ["at last"]


async def test_close_inside_a_reply_ends_that_reply(bot: Bot) -> None:
    """It does not wait for itself."""
    bot.model.add(SLOW)
    conversations = bot.conversations()

    async def close_inside() -> None:
        async with conversations.reply(KEY, "1") as reply:
            async for _ in reply:
                await conversations.aclose()

    with anyio.fail_after(20), pytest.raises(LeaseLostError):
        await close_inside()
    await conversations.aclose()


@pytest.mark.parametrize("is_outside", [True, False], ids=["outlives", "is-cancelled-first"])
async def test_bot_that_is_cancelled_leaves_what_tasks_that_outlive_it_answer(
    bot: Bot, is_outside: bool
) -> None:
    """As Ctrl-C does: a task group inside the block is cancelled before the close."""
    bot.model.add(SLOW)
    ends: list[str] = []

    async def handle(reply: Reply) -> None:
        try:
            await shown(reply)
        except LeaseLostError:
            ends.append("left")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def talk() -> None:
        outside, inside = asyncio.TaskGroup(), asyncio.TaskGroup()
        async with outside, bot.conversations() as conversations, inside:
            group = outside if is_outside else inside
            group.create_task(handle(conversations.reply(KEY, "1")))
            await anyio.sleep_forever()

    async with bot.record() as change:
        task = asyncio.ensure_future(talk())
        await until(partial(change, is_running), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ends == ["left" if is_outside else "cancelled"]
        assert await change(lambda record: record.is_open) == is_outside
