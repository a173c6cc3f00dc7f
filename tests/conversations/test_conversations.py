"""Replies before the real server: order, stop, reset, tools, and what killed processes left."""

from functools import partial

import anyio
import pytest
from anyio.abc import TaskGroup

from openai_runs import (
    NotFoundError,
    OpenAIRunsError,
    RunCancelled,
    RunFailed,
    RunRequiresAction,
)
from openai_runs.conversations import Conversations, LeaseLostError, SQLiteStore
from openai_runs.conversations.record import Record
from openai_runs.server import Call, CallTools, Fail, Hang, Say
from tests.conversations.crowd import until
from tests.conversations.talking import KEY, Bot, during, shown


async def fail() -> None:
    """Fail as a caller may."""
    raise LookupError


async def test_snapshots_grow_to_the_answer(bot: Bot) -> None:
    """And the result is that of the run, inside the block and after it."""
    bot.model.add(Say("one two three", chunk=4, pause=0.03))

    async with bot.conversations() as conversations, conversations.reply(KEY, "Hello") as reply:
        texts = [text async for text in reply]
        inside = await reply.result()

    assert texts[-1] == inside.text == (await reply.result()).text == "one two three"
    assert len(texts) > 1
    assert all(later.startswith(text) for text, later in zip(texts, texts[1:], strict=False))
    assert reply.run is not None
    assert not reply.is_merged


async def test_messages_of_a_conversation_share_a_thread(bot: Bot) -> None:
    """Also after a restart of the bot; another key has another thread."""
    bot.model.add("a", "b", "c")

    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "1"))
        await shown(conversations.reply("another", "2"))
    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "3"))

    assert await bot.texts() == ["1", "a", "3", "c"]


async def test_second_message_waits_for_the_first(bot: Bot) -> None:
    """Before two objects on one file, as two processes have them, too."""
    bot.model.add(Say("first", chunk=1, pause=0.03), "second")
    seen: list[str] = []

    async def ask(conversations: Conversations, text: str) -> None:
        async with conversations.reply(KEY, text) as reply:
            seen.append(f"{text} begins")
            seen.append((await reply.result()).text)

    async with (
        bot.conversations() as one,
        bot.conversations() as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask, one, "1")
        while not seen:  # noqa: ASYNC110 - another task's doing
            await anyio.sleep(0.01)
        tasks.start_soon(ask, other, "2")
        while len(seen) < 4:  # noqa: ASYNC110 - the same
            await anyio.sleep(0.01)

    assert seen == ["1 begins", "first", "2 begins", "second"]


async def test_tools_are_answered(bot: Bot) -> None:
    """As in `runs.stream`; arguments of a run are given to the class or to the reply."""
    bot.model.add(CallTools([Call("weather", {"city": "Oslo"})]), "done")

    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"sunny in {city}"

    async with bot.conversations(tools=[weather], instructions="A") as conversations:
        assert await shown(conversations.reply(KEY, "?", instructions="Be brief.")) == ["done"]

    assert bot.model.requests[0].run.instructions == "Be brief."


async def test_run_that_waits_for_tools_nobody_has_is_cancelled(bot: Bot) -> None:
    """It says so, and blocks nobody."""
    bot.model.add(CallTools([Call("weather", {"city": "Oslo"})]), "next")
    function = {"name": "weather", "parameters": {"type": "object"}}

    async with bot.conversations() as conversations:
        asked = conversations.reply(KEY, "?", tools=[{"type": "function", "function": function}])
        with pytest.raises(RunRequiresAction):
            await shown(asked)
        assert await shown(conversations.reply(KEY, "!")) == ["next"]


async def test_failed_run_is_raised_and_the_next_message_answered(bot: Bot) -> None:
    """As `text_snapshots` raises it: half an answer is not taken for a whole one."""
    bot.model.add(Fail(text="half"), "whole")

    async with bot.conversations() as conversations:
        with pytest.raises(RunFailed):
            await shown(conversations.reply(KEY, "1"))
        assert await shown(conversations.reply(KEY, "2")) == ["whole"]


async def ask_three(bot: Bot, when_busy: str) -> list[list[str] | str]:
    """Have a message answered, two come meanwhile, and return what became of each."""
    found: dict[str, list[str] | str] = {}

    async def ask(text: str) -> None:
        try:
            async with conversations.reply(KEY, text) as reply:
                found[text] = [one async for one in reply][-1:]
                if reply.is_merged:
                    found[text] = f"answered by {(await reply.result()).text}"
        except RunCancelled:
            found[text] = "cancelled"

    async with (
        bot.conversations(when_busy=when_busy) as conversations,
        bot.record() as change,
        anyio.create_task_group() as tasks,
    ):
        for number in (1, 2, 3):
            tasks.start_soon(ask, str(number))

            async def has_come(number: int = number) -> bool:
                last_id, claim = await change(lambda record: (record.last_id, record.claim))
                is_begun = claim is not None and claim.run_id is not None
                return last_id == number and (is_begun or number > 1)

            await until(has_come, 20)
    return [found[text] for text in "123"]


async def test_messages_that_join_are_answered_in_the_reply_to_the_last(bot: Bot) -> None:
    """The replies to the others yield nothing, and have its result."""
    bot.model.add(Say("alone", chunk=1, pause=0.1), "together")

    assert await ask_three(bot, "join") == [["alone"], "answered by together", ["together"]]
    assert await bot.texts() == ["1", "alone", "2", "3", "together"]


async def test_message_that_interrupts_is_answered(bot: Bot) -> None:
    """The run at work is cancelled; its message, and those between, are on the thread."""
    bot.model.add(Hang("For ever"), Say("at last", delay=0.2), "at last")

    first, _, last = await ask_three(bot, "interrupt")

    assert (first, last) == ("cancelled", ["at last"])
    said = [text for text in await bot.texts() if text in {"1", "2", "3"}]
    assert said == ["1", "2", "3"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
async def test_stop_ends_the_answer_at_work(bot: Bot, elsewhere: bool) -> None:
    """With `RunCancelled`; the next message is answered, and a stop of nothing does nothing."""
    bot.model.add(Hang("For ever"), "next")

    async with bot.conversations() as conversations, bot.conversations() as others:
        stopping = others if elsewhere else conversations
        assert not await stopping.stop(KEY)
        with pytest.raises(RunCancelled):
            await during(conversations.reply(KEY, "1"), partial(stopping.stop, KEY))
        assert await shown(conversations.reply(KEY, "2")) == ["next"]


async def test_stop_that_comes_late_leaves_the_next_answer_alone(bot: Bot) -> None:
    """Where it names the run that it means, which is over by then."""
    bot.model.add("first", "second")

    async with bot.conversations() as conversations:
        async with conversations.reply(KEY, "1") as reply:
            run = (await reply.result()).run
        async with conversations.reply(KEY, "2") as reply:
            assert not await conversations.stop(KEY, run.id)
            assert (await reply.result()).run.status == "completed"
        assert not await conversations.stop(KEY, "run_of_another")


async def test_stop_before_the_run_is_known_cancels_it_then(bot: Bot) -> None:
    """Nothing is lost between the create and the first event."""
    bot.model.add(Hang())

    async with bot.conversations() as conversations, conversations.reply(KEY, "1") as reply:
        assert reply.run is None
        assert await conversations.stop(KEY)
        assert (await reply.result()).run.status == "cancelled"


async def test_reset_begins_a_new_thread(bot: Bot) -> None:
    """And stops what is at work in the old one."""
    bot.model.add(Hang("For ever"), "fresh")

    async with bot.conversations() as conversations:
        with pytest.raises(RunCancelled):
            await during(conversations.reply(KEY, "1"), partial(conversations.reset, KEY))
        assert await shown(conversations.reply(KEY, "2")) == ["fresh"]

    assert await bot.texts() == ["2", "fresh"]


async def test_message_that_waits_at_a_reset_is_answered_on_the_new_thread(bot: Bot) -> None:
    """As the guide says: it is kept, and knows nothing of the old thread."""
    bot.model.add(Hang("For ever"), "fresh")
    answers: list[str] = []

    async def ask(conversations: Conversations) -> None:
        answers.extend(await shown(conversations.reply(KEY, "2")))

    async def reset_once_it_waits(tasks: TaskGroup, conversations: Conversations) -> None:
        tasks.start_soon(ask, conversations)

        async def is_waiting() -> bool:
            return "2" in (await conversations.status(KEY)).waiting

        await until(is_waiting, 20)
        await conversations.reset(KEY)

    async with anyio.create_task_group() as tasks, bot.conversations() as conversations:
        with pytest.raises(RunCancelled):
            await during(
                conversations.reply(KEY, "1"), partial(reset_once_it_waits, tasks, conversations)
            )
        with anyio.fail_after(20):
            while not answers:  # noqa: ASYNC110 - the task's doing
                await anyio.sleep(0.01)

    assert answers == ["fresh"]
    assert await bot.texts() == ["2", "fresh"]


async def test_deleted_thread_is_an_error_until_a_reset(bot: Bot) -> None:
    """A conversation that somebody deleted is not begun again unasked."""
    bot.model.add("a", "b")

    async with bot.conversations() as conversations:
        await shown(conversations.reply(KEY, "1"))
        async with bot.record() as change:
            await bot.client.threads.delete(await change(lambda record: record.thread_id))
        with pytest.raises(NotFoundError):
            await shown(conversations.reply(KEY, "2"))
        await conversations.reset(KEY)
        assert await shown(conversations.reply(KEY, "3")) == ["b"]


async def test_leaving_early_cancels_the_run(bot: Bot) -> None:
    """By an error of the caller's as well, which comes out as it is."""
    bot.model.add(Hang("For ever"), Hang("For ever"), "next")

    async with bot.conversations() as conversations:
        async with conversations.reply(KEY, "1") as reply:
            async for _ in reply:
                break
        assert (await reply.result()).run.status == "cancelled"
        with pytest.raises(LookupError):
            await during(conversations.reply(KEY, "2"), fail)
        assert await shown(conversations.reply(KEY, "3")) == ["next"]


async def test_caller_that_gives_up_waiting_leaves_the_line(bot: Bot) -> None:
    """Its message is not answered."""
    bot.model.add("a", "b")

    async with bot.conversations() as conversations:
        async with conversations.reply(KEY, "1") as first:
            with anyio.move_on_after(0.1) as scope:
                await shown(conversations.reply(KEY, "2"))
            assert scope.cancelled_caught
            await first.result()
        await shown(conversations.reply(KEY, "3"))

    assert await bot.texts() == ["1", "a", "3", "b"]


async def test_lease_that_was_lost_ends_the_block_and_leaves_the_run(bot: Bot) -> None:
    """A process that slept for too long does not cancel what another one waits for."""
    bot.model.add(Hang("For ever"))

    async with bot.conversations(lease=0.2) as conversations, bot.record() as change:

        def replace(record: Record) -> None:
            assert record.claim is not None
            record.claim.owner = "another"

        with pytest.raises(LeaseLostError):
            await during(conversations.reply(KEY, "1"), partial(change, replace))
        claim = await change(lambda record: record.claim)

    run = await bot.client.runs.retrieve(claim.run_id, thread_id=claim.thread_id)
    assert run.status == "in_progress"
    await bot.client.runs.cancel(run.id, thread_id=run.thread_id)


# --- arguments


async def test_answer_to_a_message_that_could_not_be_sent_is_an_error(bot: Bot) -> None:
    """`result` of a reply that was never entered, too."""
    async with bot.conversations() as conversations:
        with pytest.raises(OpenAIRunsError, match="no run answered"):
            await conversations.reply(KEY, "1").result()


async def test_bad_arguments_are_errors_before_anything_is_stored(bot: Bot) -> None:
    """They name what is wrong."""
    with pytest.raises(ValueError, match="when_busy"):
        bot.conversations(when_busy="wait")
    with pytest.raises(ValueError, match="lease"):
        bot.conversations(lease=0)
    with pytest.raises(TypeError, match="'on_cancel'"):
        bot.conversations(on_cancel="leave")
    async with bot.conversations() as conversations:
        with pytest.raises(TypeError, match="additional_messages"):
            conversations.reply(KEY, "1", additional_messages=[])
        with pytest.raises(TypeError, match="key must be"):
            conversations.reply((1.5,), "1")  # type: ignore[arg-type]  # that is the point

    assert not bot.file.exists()


async def test_store_of_the_callers_own_is_used_and_not_closed(bot: Bot) -> None:
    """Any object with the three methods."""
    bot.model.add("a")
    store = SQLiteStore(bot.file)

    async with bot.conversations(store=store) as conversations:
        await shown(conversations.reply(KEY, "1"))

    assert await store.open_keys() == []
    await store.aclose()


async def test_stop_of_a_run_that_has_ended_by_itself_stops_nothing(bot: Bot) -> None:
    """The run was completed at the server before the cancel arrived: the answer is false."""
    bot.model.add("a")

    async with bot.conversations() as conversations, conversations.reply(KEY, "1") as reply:
        assert reply.stream is not None
        await reply.stream.until_done()
        assert await conversations.stop(KEY) is False
        assert (await reply.result()).text == "a"
