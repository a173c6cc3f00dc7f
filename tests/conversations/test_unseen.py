"""An answer that a killed process had begun is shown to somebody, whatever becomes of the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from openai_runs import AsyncClient, AuthenticationError, InternalServerError, RunFailed
from openai_runs.conversations import Reply
from openai_runs.conversations.record import Next, Record
from openai_runs.server import Fail, Hang
from openai_runs.testing import RunsServer
from tests.conversations.talking import KEY, Bot, shown
from tests.conversations.test_killed import STATES, left


async def first_text(bot: Bot) -> str:
    """Return what `abandoned` shows first."""
    async with bot.conversations(lease=0.4) as conversations:
        with anyio.fail_after(20):
            async for reply in conversations.abandoned():
                return (await shown(reply))[0]
    raise AssertionError


async def is_open(bot: Bot) -> bool:
    """Return whether anything is left in the conversation."""
    async with bot.record() as change:
        found: bool = await change(lambda record: record.is_open)
    return found


async def leave_block_with_an_error(reply: Reply) -> None:
    """Fail before anything is read."""
    async with reply:
        raise LookupError


async def give_up(reply: Reply) -> None:
    """Be cancelled before anything is read."""
    with anyio.CancelScope() as scope:
        async with reply:
            scope.cancel()
            await anyio.lowlevel.checkpoint()


async def ask_for_the_result(reply: Reply) -> None:
    """Never iterate; the run fails."""
    async with reply:
        (await reply.result()).run.raise_for_status()


@pytest.mark.parametrize("run", STATES, ids=["not created", "id not noted", "id noted"])
@pytest.mark.parametrize(
    ("act", "line"),
    [
        pytest.param(leave_block_with_an_error, Hang("For ever"), id="error"),
        pytest.param(give_up, Hang("For ever"), id="cancelled"),
        pytest.param(ask_for_the_result, Fail(), id="not-read"),
    ],
)
async def test_begun_answer_is_shown_later_where_the_next_reply_has_not_shown_it(
    bot: Bot, run: str, act: Callable[[Reply], Awaitable[None]], line: Fail | Hang
) -> None:
    """It is found again by `abandoned`, once, and no run is made twice."""
    bot.model.add("to the dead", line)
    await left(bot, "1", run=run)

    async with bot.conversations() as conversations:
        with suppress(LookupError, RunFailed):
            await act(conversations.reply(KEY, "2"))
    assert await first_text(bot) == "to the dead"

    assert not await is_open(bot)
    assert (await bot.texts())[:3] == ["1", "to the dead", "2"]


async def test_begun_answer_is_shown_by_the_next_message_after_one_that_failed(bot: Bot) -> None:
    """Before its own; then it is over."""
    bot.model.add("to the dead", Hang("For ever"), "to the living", "more")
    await left(bot, "1", run="known")

    async with bot.conversations() as conversations:
        with pytest.raises(LookupError):
            await leave_block_with_an_error(conversations.reply(KEY, "2"))
        texts = await shown(conversations.reply(KEY, "3"))
        assert texts == ["to the dead", "to the dead\n\nto the living"]
        assert await shown(conversations.reply(KEY, "4")) == ["more"]


async def test_begun_answer_that_was_yielded_is_not_shown_again(bot: Bot) -> None:
    """Although the block that yielded it is left with an error."""
    bot.model.add("to the dead", Hang("For ever"), "to the living")
    await left(bot, "1", run="known")

    async def fail(reply: Reply) -> None:
        async with reply:
            async for text in reply:
                if "For ever" in text:
                    raise LookupError

    async with bot.conversations() as conversations:
        with pytest.raises(LookupError):
            await fail(conversations.reply(KEY, "2"))
        assert await shown(conversations.reply(KEY, "3")) == ["to the living"]


@pytest.mark.parametrize(
    ("status", "error"), [(500, InternalServerError), (401, AuthenticationError)]
)
async def test_begun_answer_is_shown_where_the_next_run_cannot_be_created(
    bot: Bot, runs_server: RunsServer, status: int, error: type[Exception]
) -> None:
    """The server refuses that create, and the ones after it."""
    runs_server.reply("to the dead")
    runs_server.reply("to the living")
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        bot.client = client
        bot.assistant = await client.assistants.create(model="any")
        await left(bot, "1", run="known")
        runs_server.fault(status, method="POST", path="/threads/*/runs", times=2)
        async with bot.conversations() as conversations:
            for text in "23":
                with pytest.raises(error):
                    await shown(conversations.reply(KEY, text))
        assert await first_text(bot) == "to the dead"
        assert not await is_open(bot)


def test_begun_answers_of_several_killed_processes_come_back_in_order() -> None:
    """Each recovers, claims and is killed; what nobody has shown is kept."""
    made, now = Record(thread_id="t"), 0.0
    made.add("1", "a", now + 1)
    for number, owner in enumerate("abc", 1):
        begun = made.begin(number, owner, now=now, until=now + 1, key=owner, together=False)
        assert begun.next is Next.ANSWER
        now += 2
        successor = chr(ord(owner) + 1)
        made.add("next", successor, now + 1)
        found = made.begin(number + 1, successor, now=now, until=now + 1, key="key", together=False)
        assert found.next is Next.RECOVER
        made.end_recovered(successor, has_answer=True)
        assert made.stop() is None

    made.begin(4, "d", now=now, until=now + 1, key="d", together=False)
    assert made.claim is not None
    assert [one.ids for one in made.claim.earlier] == [[1], [2], [3]]
    made.end(4, "d")
    assert made.claim is not None
    assert (made.claim.ids, made.claim.until) == ([3], 0.0)
    assert [one.ids for one in made.claim.earlier] == [[1], [2]]

    assert made.adopt("e", now=now, until=now + 1) == 3
    assert made.begin(3, "e", now=now, until=now + 1, key="e", together=False).next is Next.RESUME
    made.see_earlier(3, "e")
    made.end(3, "e")
    assert not made.is_open
