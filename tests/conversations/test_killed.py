"""What a process that was killed has left: runs to be found, messages to be answered."""

import time
from functools import partial

import anyio
import pytest

from openai_runs import (
    NotFoundError,
    RunFailed,
)
from openai_runs.conversations import Reply
from openai_runs.conversations.record import Record
from openai_runs.server import Call, CallTools, Fail, Hang, Say
from tests.conversations.talking import KEY, Bot, shown


async def left(bot: Bot, *texts: str, run: str = "", waiting: str = "") -> None:
    """Leave a claim whose lease has expired, as a kill does; `run` says how far its run came."""
    thread = await bot.client.threads.create()

    def begin(record: Record) -> None:
        record.thread_id = thread.id
        for text in texts:
            record.add(text, "dead", 2.0)
        last = record.last_id
        record.begin(last, "dead", now=1.0, until=2.0, key="key-of-the-claim", together=True)
        if waiting:
            record.add(waiting, "dead too", 2.0)

    async with bot.record() as change:
        await change(begin)
        if run:
            stream = bot.client.runs.stream(
                thread.id,
                assistant_id=bot.assistant.id,
                additional_messages=[{"role": "user", "content": text} for text in texts],
                idempotency_key="key-of-the-claim",
                on_active_run="wait",
            )
            async with stream:
                async for _ in stream:
                    if run == "unknown":
                        break
            if run == "known":
                assert stream.run is not None
                start = partial(
                    Record.start, owner="dead", thread_id=thread.id, run_id=stream.run.id
                )
                await change(start)


STATES = ["", "unknown", "known"]


@pytest.mark.parametrize("run", STATES, ids=["not created", "id not noted", "id noted"])
async def test_claim_of_a_killed_process_is_finished_by_the_next_reply(bot: Bot, run: str) -> None:
    """Its run is made, or found and waited for, but never made twice."""
    bot.model.add(Say("to the dead", chunk=2, pause=0.01), "to the living")
    await left(bot, "1", "2", run=run)

    async with bot.conversations() as conversations, conversations.reply(KEY, "3") as reply:
        assert (await reply.result()).text == "to the living"

    assert [result.text for result in reply.earlier] == ["to the dead"]
    assert await bot.texts() == ["1", "2", "to the dead", "3", "to the living"]


@pytest.mark.parametrize("run", STATES, ids=["not created", "id not noted", "id noted"])
async def test_claim_of_a_killed_process_is_shown_where_nobody_writes(bot: Bot, run: str) -> None:
    """`abandoned` yields its conversation, and the answer; then what waited behind it."""
    bot.model.add("to the dead", "to those behind")
    await left(bot, "1", run=run, waiting="2")
    answers: list[str] = []

    async with bot.conversations(lease=0.5) as conversations:
        async for reply in conversations.abandoned():
            assert reply.key == KEY
            answers += (await shown(reply))[-1:]
            if len(answers) == 2:
                break

    assert answers == ["to the dead", "to those behind"]
    assert await bot.texts() == ["1", "to the dead", "2", "to those behind"]


@pytest.mark.parametrize("is_claimed", [False, True], ids=["waiting", "claimed"])
async def test_abandoned_yields_a_conversation_as_soon_as_its_lease_has_expired(
    bot: Bot, is_claimed: bool
) -> None:
    """Not when it searches next anyway, which would be in an hour here."""
    bot.model.add("a")

    def add(record: Record) -> None:
        until = time.time() + 0.2
        record.add("1", "dead", until)
        if is_claimed:
            record.begin(1, "dead", now=0.0, until=until, key="key", together=False)

    async with bot.record() as change:
        await change(add)
    async with bot.conversations(lease=7200) as conversations:
        async for reply in conversations.abandoned():
            assert await shown(reply) == ["a"]
            break


async def test_abandoned_messages_are_answered_until_the_close(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after an answer that failed, which is logged, and by a function that is called."""
    bot.model.add("to the dead", "to those behind")
    await left(bot, "1", waiting="2")
    answers: list[str] = []

    async with anyio.create_task_group() as tasks, bot.conversations(lease=0.2) as conversations:

        async def answer(reply: Reply) -> None:
            answers.extend((await shown(reply))[-1:])
            if len(answers) == 2:
                tasks.start_soon(conversations.aclose)
            raise LookupError

        with anyio.fail_after(20):
            await conversations.answer_abandoned(answer)

    assert answers == ["to the dead", "to those behind"]
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"] * 2


async def test_messages_that_waited_are_answered_with_the_next(bot: Bot) -> None:
    """In the order in which they arrived."""
    bot.model.add("to the dead", "to all others")
    await left(bot, "1", waiting="2")

    async with bot.conversations() as conversations:
        texts = await shown(conversations.reply(KEY, "3"))

    assert texts == ["to the dead", "to the dead\n\nto all others"]
    assert await bot.texts() == ["1", "to the dead", "2", "3", "to all others"]


async def test_tools_of_a_killed_process_are_called_again(bot: Bot) -> None:
    """A run that waits for outputs is resumed with the tools that are here."""
    bot.model.add(CallTools([Call("weather", {"city": "Oslo"})]), "to the dead", "to the living")
    await left(bot, "1", run="known")

    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"sunny in {city}"

    async with (
        bot.conversations(tools=[weather]) as conversations,
        conversations.reply(KEY, "2") as reply,
    ):
        await reply.result()

    assert [result.text for result in reply.earlier] == ["to the dead"]


async def test_left_run_is_cancelled_where_messages_interrupt(bot: Bot) -> None:
    """Nobody waits for an answer that nobody wants."""
    bot.model.add(Hang("For ever"), "to the living")
    await left(bot, "1", run="unknown")

    async with (
        bot.conversations(when_busy="interrupt") as conversations,
        conversations.reply(KEY, "2") as reply,
    ):
        assert (await reply.result()).text == "to the living"

    assert [result.run.status for result in reply.earlier] == ["cancelled"]


async def test_left_claim_whose_thread_is_gone_blocks_nobody(bot: Bot) -> None:
    """It ends, and after a reset the conversation goes on."""
    bot.model.add("fresh")
    await left(bot, "1")
    async with bot.record() as change:
        await bot.client.threads.delete(await change(lambda record: record.thread_id))

    async with bot.conversations() as conversations:
        await conversations.reset(KEY)
        assert await shown(conversations.reply(KEY, "2")) == ["fresh"]


async def test_left_claim_that_cannot_be_sent_blocks_nobody(bot: Bot) -> None:
    """The error is that of the next message's own run."""
    await left(bot, "1")
    async with bot.record() as change:
        await bot.client.threads.delete(await change(lambda record: record.thread_id))

    async with bot.conversations() as conversations:
        with pytest.raises(NotFoundError):
            await shown(conversations.reply(KEY, "2"))
    async with bot.record() as change:
        assert not await change(lambda record: record.is_open)


async def test_left_claim_without_a_thread_is_answered_on_a_new_one(bot: Bot) -> None:
    """Killed before anything was sent."""
    bot.model.add("to the dead", "to the living")
    await left(bot, "1")

    def forget(record: Record) -> None:
        assert record.claim is not None
        record.thread_id = record.claim.thread_id = None

    async with bot.record() as change:
        await change(forget)
    async with bot.conversations() as conversations:
        assert await shown(conversations.reply(KEY, "2")) == [
            "to the dead",
            "to the dead\n\nto the living",
        ]

    assert await bot.texts() == ["1", "to the dead", "2", "to the living"]


async def test_reply_that_is_given_up_leaves_what_it_recovers(bot: Bot) -> None:
    """The next one finds it as it was: the run goes on, and its message is in line."""
    bot.model.add(Hang("For ever"), "to the living")
    await left(bot, "1", run="unknown")

    async with bot.conversations() as conversations, bot.record() as change:
        with anyio.move_on_after(0.5):
            await shown(conversations.reply(KEY, "2"))
        claim = await change(lambda record: record.claim)
        (run,) = [one async for one in bot.client.runs.list(claim.thread_id)]
        assert (claim.ids, claim.until, run.status) == ([1], 0.0, "in_progress")

        await conversations.stop(KEY)
        await bot.client.runs.cancel_and_wait(run.id, thread_id=run.thread_id)
        assert await shown(conversations.reply(KEY, "3")) == ["to the living"]
    assert await bot.texts() == ["1", "For ever", "3", "to the living"]


@pytest.mark.parametrize("run", STATES, ids=["not created", "id not noted", "id noted"])
async def test_answer_of_a_killed_process_is_yielded_before_that_to_a_new_message(
    bot: Bot, run: str
) -> None:
    """Who writes before `abandoned` finds the conversation is shown both."""
    bot.model.add("to the dead", Say("to the living", chunk=3, pause=0.02))
    await left(bot, "1", run=run)

    async with bot.conversations() as conversations:
        texts = await shown(conversations.reply(KEY, "2"))

    assert texts[0] == "to the dead"
    assert texts[-1] == "to the dead\n\nto the living"
    assert all(later.startswith(text) for text, later in zip(texts, texts[1:], strict=False))


async def test_answer_of_a_killed_process_is_yielded_where_the_next_one_fails(bot: Bot) -> None:
    """It does not depend on the new run."""
    bot.model.add("to the dead", Fail())
    await left(bot, "1", run="known")
    texts: list[str] = []

    async def read(reply: Reply) -> None:
        async with reply:
            async for text in reply:
                texts.append(text)  # noqa: PERF401 - what came before the error counts

    async with bot.conversations() as conversations:
        with pytest.raises(RunFailed):
            await read(conversations.reply(KEY, "2"))

    assert texts == ["to the dead"]
