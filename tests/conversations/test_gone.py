"""A thread that is gone at the server: an error that says so, or a new thread if asked."""

from __future__ import annotations

from functools import partial

import pytest

from openai_runs import AsyncClient, NotFoundError, StreamInterrupted
from openai_runs.conversations import Conversations, ThreadGoneError
from openai_runs.conversations.record import Record
from openai_runs.server import Hang, LocalServer, ScriptedBackend
from tests.conversations.talking import KEY, Bot, during, shown


async def lose_thread(bot: Bot) -> str:
    """Delete the conversation's thread at the server; return its id."""
    async with bot.record() as change:
        thread_id: str = await change(lambda record: record.thread_id)
    await bot.client.threads.delete(thread_id)
    return thread_id


async def leave_claim(bot: Bot, *, text: str, thread_id: str) -> None:
    """Have a killed process leave a message that it was answering."""

    def begin(record: Record) -> None:
        record.thread_id = thread_id
        record.add(text, "killed", 1.0)
        record.begin(1, "killed", now=0.0, until=1.0, key="key", together=False)

    async with bot.record() as change:
        await change(begin)


async def test_thread_that_is_gone_is_an_error_that_says_how_to_go_on(bot: Bot) -> None:
    """No thread is replaced unasked, since it may be the wrong server; reset does so."""
    bot.model.add("a", "b")

    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "1"))
        thread_id = await lose_thread(bot)
        with pytest.raises(ThreadGoneError) as caught:
            await shown(conversations.reply(KEY, "2"))
        assert (await conversations.status(KEY)).thread_id == thread_id
        await conversations.reset(KEY)
        assert await shown(conversations.reply(KEY, "3")) == ["b"]

    error = caught.value
    assert isinstance(error, NotFoundError)
    assert error.thread_id == thread_id
    assert error.status_code == 404
    assert str(error).startswith(
        f'thread {thread_id} of conversation ["ada",7] is gone at the server: '
    )
    assert "await conversations.reset(('ada', 7))" in str(error)
    assert "missing_thread='new'" in str(error)


async def test_thread_that_is_gone_is_replaced_where_that_is_asked(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is answered on the new thread, once, and a warning says what is lost."""
    bot.model.add("a", "b", "c")

    async with bot.conversations(missing_thread="new") as conversations:
        await shown(conversations.reply(KEY, "1"))
        lost = await lose_thread(bot)
        assert await shown(conversations.reply(KEY, "2", idempotency_key="m2")) == ["b"]
        found = (await conversations.status(KEY)).thread_id
        assert await shown(conversations.reply(KEY, "3")) == ["c"]

    assert await bot.texts() == ["2", "b", "3", "c"]
    warnings = [one for one in caplog.records if one.levelname == "WARNING"]
    wanted = (
        f'thread {lost} of conversation ["ada",7] is gone at the server: it goes on in a new one, '
        "without what was said before"
    )
    assert [one.getMessage() for one in warnings] == [wanted]
    assert found not in (None, lost)
    assert vars(warnings[0])["thread_id"] == lost


async def test_message_of_a_killed_bot_is_answered_on_a_new_thread_where_its_own_is_gone(
    bot: Bot,
) -> None:
    """It comes before the next message, which is on the same new thread."""
    bot.model.add("a", "b", "c")
    async with bot.conversations() as conversations:
        thread = await bot.client.threads.create()
        await bot.client.threads.delete(thread.id)
    await leave_claim(bot, text="1", thread_id=thread.id)

    async with bot.conversations(missing_thread="new") as conversations:
        assert await shown(conversations.reply(KEY, "2")) == ["a", "a\n\nb"]

    assert await bot.texts() == ["1", "a", "2", "b"]


async def test_abandoned_message_is_answered_on_a_new_thread_where_its_own_is_gone(
    bot: Bot,
) -> None:
    """Also where nobody writes."""
    bot.model.add("a")
    thread = await bot.client.threads.create()
    await bot.client.threads.delete(thread.id)
    await leave_claim(bot, text="1", thread_id=thread.id)

    async with bot.conversations(missing_thread="new") as conversations:
        async for reply in conversations.abandoned():
            assert await shown(reply) == ["a"]
            break

    assert await bot.texts() == ["1", "a"]


@pytest.mark.parametrize("missing_thread", ["raise", "new"])
async def test_assistant_that_is_gone_leaves_the_thread_alone(
    bot: Bot, missing_thread: str
) -> None:
    """Its 404 is as the server has put it, and the thread stays that of the conversation."""
    bot.model.add("a")
    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "1"))
        thread_id = (await conversations.status(KEY)).thread_id
    await bot.client.assistants.delete(bot.assistant.id)

    async with bot.conversations(missing_thread=missing_thread) as conversations:
        with pytest.raises(NotFoundError) as caught:
            await shown(conversations.reply(KEY, "2"))
        assert (await conversations.status(KEY)).thread_id == thread_id

    assert type(caught.value) is NotFoundError
    assert bot.assistant.id in str(caught.value)


async def test_thread_that_is_gone_during_an_answer_is_found_by_the_next_message(bot: Bot) -> None:
    """A reset meanwhile wins: the new thread is that of the reset."""
    bot.model.add(Hang("For ever"), "next")

    async with bot.conversations(missing_thread="new") as conversations:
        async with conversations.reply(KEY, "1") as reply:
            async for _ in reply:
                break
        await lose_thread(bot)
        assert await shown(conversations.reply(KEY, "2")) == ["next"]

    assert await bot.texts() == ["2", "next"]


async def test_another_server_takes_no_conversation_along_unasked(bot: Bot) -> None:
    """By default: back at the right server the thread is that of before."""
    bot.model.add("a", "b")
    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "1"))
    model = ScriptedBackend()
    async with LocalServer(backend=model) as server, AsyncClient(server.url) as client:
        other = await client.assistants.create(model="scripted")
        async with Conversations(client, assistant_id=other.id, store=bot.file) as conversations:
            with pytest.raises(ThreadGoneError, match="or is this another server"):
                await shown(conversations.reply(KEY, "lost"))

    async with bot.conversations() as conversations:
        assert await shown(conversations.reply(KEY, "2")) == ["b"]
    assert await bot.texts() == ["1", "a", "2", "b"]


async def test_missing_thread_that_is_neither_is_an_error(bot: Bot) -> None:
    """At once, and in the words of the others."""
    with pytest.raises(ValueError, match="missing_thread must be 'raise' or 'new', got 'reset'"):
        bot.conversations(missing_thread="reset")


@pytest.mark.parametrize("is_iterated", [True, False], ids=["iterated", "result"])
async def test_thread_that_is_deleted_during_an_answer_is_an_error_that_says_so(
    bot: Bot, is_iterated: bool
) -> None:
    """At once, in the block, and not again when nobody writes."""
    bot.model.add(Hang("For ever"))

    async with bot.conversations() as conversations:
        reply = conversations.reply(KEY, "1")
        async with reply:
            async for _ in reply:
                break
            thread_id = await lose_thread(bot)
            rest = anext(aiter(reply)) if is_iterated else reply.result()
            with pytest.raises(ThreadGoneError) as caught:
                await rest
        assert caught.value.thread_id == thread_id
        assert not reply.is_left
        assert not (await conversations.status(KEY)).is_busy


async def test_thread_that_is_deleted_during_an_answer_leaves_the_message_to_a_new_one(
    bot: Bot,
) -> None:
    """Where that is asked: `abandoned` answers it."""
    bot.model.add(Hang("For ever"), "at last")

    async with bot.conversations(missing_thread="new") as conversations:
        reply = conversations.reply(KEY, "1")
        with pytest.raises(StreamInterrupted):
            await during(reply, partial(lose_thread, bot))
        assert reply.is_left
        async for again in conversations.abandoned():
            assert await shown(again) == ["at last"]
            break
    assert await bot.texts() == ["1", "at last"]
