"""What becomes of messages, and of the log, while the server cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import pytest

from openai_runs import (
    APIConnectionError,
    AsyncClient,
    AuthenticationError,
    InternalServerError,
    OpenAIRunsError,
    RunFailed,
)
from openai_runs.conversations import DuplicateMessageError, LeaseLostError, Reply
from openai_runs.conversations.offers import Offer
from openai_runs.conversations.record import Record
from openai_runs.server import Fail, Hang
from openai_runs.testing import RunsServer
from tests.conversations.talking import KEY, Bot, shown, until_abandoned_ends
from tests.conversations.test_killed import left

LOGGER = "openai_runs.conversations"
DEAD = "http://127.0.0.1:1/v1"
KEY_TEXT = '["ada",7]'


def words(caplog: pytest.LogCaptureFixture, *levels: str) -> list[str]:
    """Return what was logged at these levels."""
    own = [one for one in caplog.records if one.name == LOGGER]
    return [one.getMessage() for one in own if one.levelname in levels]


async def attempt(reply: Reply) -> type[Exception] | None:
    """Return how a reply failed."""
    try:
        await shown(reply)
    except OpenAIRunsError as error:
        return type(error)
    return None


# --- what is left


async def test_reply_says_whether_its_message_is_answered_later(bot: Bot) -> None:
    """A kept one is, and one that was left; one that was only refused is not."""
    bot.model.add(Fail(), "answer")

    async with AsyncClient(DEAD, max_retries=0) as client:
        up, bot.client = bot.client, client
        async with bot.conversations() as down:
            dropped, kept = down.reply(KEY, "1"), down.reply(KEY, "2")
            kept.keep()
            assert not kept.is_left
            assert await attempt(dropped) is await attempt(kept) is APIConnectionError
            assert (dropped.is_left, kept.is_left) == (False, True)
            async for again in down.abandoned():
                assert await attempt(again) is APIConnectionError
                assert again.is_left
                break
        bot.client = up

    async with bot.conversations() as conversations:
        async for reply in conversations.abandoned():
            assert await attempt(reply) is RunFailed
            assert not reply.is_left
            break
        answered = conversations.reply(KEY, "3")
        assert await attempt(answered) is None
        assert not answered.is_left
    assert await bot.texts() == ["2", "3", "answer"]


async def test_reply_whose_create_may_have_succeeded_is_left(
    runs_server: RunsServer, bot: Bot
) -> None:
    """`abandoned` finds its run."""
    runs_server.reply("answer")
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        bot.client, bot.assistant = client, await client.assistants.create(model="any")
        async with bot.conversations() as conversations:
            runs_server.fault(500, method="POST", path="/threads/*/runs")
            reply = conversations.reply(KEY, "1")
            assert await attempt(reply) is InternalServerError
            assert reply.is_left
            async for again in conversations.abandoned():
                assert await shown(again) == ["answer"]
                assert not again.is_left
                break


async def test_conversation_that_is_left_again_is_offered_less_and_less_often(bot: Bot) -> None:
    """Twice as long each time, up to a minute; at once after one that was answered."""
    await left(bot, "1")

    async with AsyncClient(DEAD, max_retries=0) as client:
        bot.client = client
        async with bot.conversations() as conversations:
            offer: Offer | None = None
            pauses: list[float] = []
            for _ in range(8):
                reply = conversations.reply(KEY, "1")
                reply.keep()
                offer = Offer(reply, offer, 7.5)
                assert offer.is_due
                await attempt(reply)
                assert not offer.is_due
                pauses.append(offer.pause)
            assert pauses == [7.5, 15, 30, 60, 60, 60, 60, 60]
            fresh = Offer(conversations.reply(KEY, "2"), None, 7.5)
            assert Offer(conversations.reply(KEY, "3"), fresh, 7.5).pause == 7.5


async def test_left_message_is_answered_once_the_server_is_back(
    bot: Bot, runs_server: RunsServer
) -> None:
    """However often it was offered meanwhile."""
    runs_server.reply("at last")
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        bot.client, bot.assistant = client, await client.assistants.create(model="any")
        runs_server.fault(401, method="POST", path="/threads/*/runs", times=3)
        ends: list[object] = []
        async with bot.conversations(lease=0.2) as conversations:
            reply = conversations.reply(KEY, "1")
            reply.keep()
            assert await attempt(reply) is AuthenticationError
            with anyio.fail_after(20):
                async for again in conversations.abandoned():
                    ends.append(await attempt(again))
                    if again.run is not None:
                        break
    assert ends == [AuthenticationError, AuthenticationError, None]


# --- the log


async def test_outage_is_logged_once_and_when_it_is_over(
    bot: Bot, caplog: pytest.LogCaptureFixture, runs_server: RunsServer
) -> None:
    """As warnings; each message has its line at INFO."""
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        bot.client, bot.assistant = client, await client.assistants.create(model="any")
        with caplog.at_level(logging.INFO, LOGGER):
            async with bot.conversations() as conversations:
                runs_server.fault(503, method="POST", path="/threads", times=2)
                for text in "12":
                    await attempt(conversations.reply(KEY, text))
                for text in "34":
                    assert await attempt(conversations.reply(KEY, text)) is None
                runs_server.fault(503, method="POST", path="/threads/*/runs")
                await attempt(conversations.reply(KEY, "5"))

    begins, ends, again = words(caplog, "WARNING")
    assert begins.startswith("messages cannot be answered for now: InternalServerError: ")
    assert ends == "messages are answered again"
    assert again.startswith("messages cannot be answered for now")


async def test_abandoned_message_that_is_left_again_is_one_line_of_the_log(
    bot: Bot, caplog: pytest.LogCaptureFixture, runs_server: RunsServer
) -> None:
    """Not a traceback each round: that the key is wrong was logged before."""
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        bot.client, bot.assistant = client, await client.assistants.create(model="any")
        runs_server.fault(401, method="POST", path="/threads/*/runs", times=3)
        async with (
            bot.conversations(lease=0.1) as conversations,
            anyio.create_task_group() as tasks,
        ):
            reply = conversations.reply(KEY, "1")
            reply.keep()
            await attempt(reply)
            answered = anyio.Event()

            async def answer(reply: Reply) -> None:
                await shown(reply)
                answered.set()

            tasks.start_soon(conversations.answer_abandoned, answer)
            with anyio.fail_after(20):
                await answered.wait()
            await conversations.aclose()

    assert len(words(caplog, "WARNING")) == 2
    assert words(caplog, "ERROR") == []


async def test_abandoned_message_that_fails_for_good_is_logged_without_a_traceback(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours says all; the key is written as everywhere."""
    bot.model.add(Fail())
    await left(bot, "1")
    await until_abandoned_ends(bot)

    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    assert f"conversation {KEY_TEXT} was not answered: RunFailed: " in record.getMessage()
    assert record.exc_info is None


async def cancel(reply: Reply) -> None:
    """Cancel the task of the reply in mid-answer."""
    with anyio.CancelScope() as scope:
        async with reply:
            async for _ in reply:
                scope.cancel()


async def stop_reading(reply: Reply) -> None:
    """Leave the block before the end."""
    async with reply:
        async for _ in reply:
            return


@pytest.mark.parametrize("act", [cancel, stop_reading])
async def test_reply_that_is_cancelled_is_logged_as_such(
    bot: Bot,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[Reply], Awaitable[None]],
) -> None:
    """Its run is cancelled with it, and nobody answers the message later."""
    bot.model.add(Hang("For ever"))

    with caplog.at_level(logging.INFO, LOGGER):
        async with bot.conversations() as conversations:
            reply = conversations.reply(KEY, "1")
            await act(reply)

    assert words(caplog, "INFO") == [f"message 1 of conversation {KEY_TEXT}: cancelled"]
    assert not reply.is_left


async def test_reply_that_is_left_to_the_next_start_is_logged_as_such(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """By the close: its run goes on."""
    bot.model.add(Hang("For ever"))
    conversations = bot.conversations()
    reply = conversations.reply(KEY, "1")

    async def close() -> None:
        async with reply:
            async for _ in reply:
                await conversations.aclose()

    with caplog.at_level(logging.INFO, LOGGER), pytest.raises(LeaseLostError):
        await close()

    wanted = f"message 1 of conversation {KEY_TEXT}: left, to be answered later"
    assert words(caplog, "INFO") == [wanted]
    assert reply.is_left


async def test_message_that_comes_again_is_logged_without_a_number(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """It has none."""
    bot.model.add("answer")

    with caplog.at_level(logging.INFO, LOGGER):
        async with bot.conversations() as conversations:
            await shown(conversations.reply(KEY, "1", idempotency_key="m1"))
            again = conversations.reply(KEY, "1", idempotency_key="m1")
            assert await attempt(again) is DuplicateMessageError

    assert words(caplog, "INFO")[1] == f"a message of conversation {KEY_TEXT}: received before"
    assert not again.is_left


# --- a stop meanwhile


@pytest.mark.parametrize("is_kept", [False, True], ids=["sent-again", "kept"])
async def test_message_that_was_stopped_in_an_outage_is_not_answered_later(
    bot: Bot, is_kept: bool
) -> None:
    """Not when it comes again, nor by `abandoned`."""
    async with AsyncClient(DEAD, max_retries=3) as client:
        up, bot.client = bot.client, client
        async with bot.conversations() as down, bot.record() as change:
            reply = down.reply(KEY, "1", idempotency_key="m1")
            if is_kept:
                reply.keep()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(attempt, reply)
                with anyio.fail_after(20):
                    while not await down.stop(KEY):
                        await anyio.lowlevel.checkpoint()
        bot.client = up
        assert not reply.is_left
        async with bot.conversations() as conversations, bot.record() as change:
            again = conversations.reply(KEY, "1", idempotency_key="m1")
            assert await attempt(again) is DuplicateMessageError
            assert not await change(lambda record: record.is_open)


def test_message_that_was_stopped_with_a_later_one_keeps_its_key() -> None:
    """Its reply learns of that afterwards."""
    made = Record()
    made.add("1", "a", 9.0, "m1")
    made.add("2", "b", 9.0, "m2")
    made.begin(2, "b", now=1.0, until=9.0, key="key", together=True)
    made.stop()
    made.end(2, "b")
    made.forget(1, "m1", is_unsent=False)

    assert made.keys == ["m1", "m2"]
