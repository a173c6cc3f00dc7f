"""What a stop does while a tool runs: both end at once, whichever process stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from openai_runs import APIConnectionError, AsyncClient, RetryPolicy, RunCancelled
from openai_runs.conversations import Conversations, LeaseLostError, Reply
from openai_runs.conversations.record import Record
from openai_runs.server import Call, CallTools, Hang
from tests.conversations.talking import KEY, Bot, during, shown

TOOL = CallTools([Call("wait")])


class Tool:
    """A tool that never ends by itself."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.cancelled = anyio.Event()

    async def wait(self) -> str:
        """Wait for ever."""
        self.called.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()
        return ""


async def read(reply: Reply) -> object:
    """Iterate a reply."""
    return await shown(reply)


async def await_result(reply: Reply) -> object:
    """Wait for the result of a reply, and iterate nothing."""
    async with reply:
        result = await reply.result()
    return result.run.raise_for_status()


async def stop_at(
    called: anyio.Event, stopping: Conversations, act: Callable[[Conversations], Awaitable[object]]
) -> None:
    """Act once the tool runs."""
    await called.wait()
    await act(stopping)


async def stop(conversations: Conversations) -> None:
    """Stop the answer at work."""
    assert await conversations.stop(KEY)


async def reset(conversations: Conversations) -> None:
    """Begin another thread."""
    await conversations.reset(KEY)


async def interrupt(conversations: Conversations) -> None:
    """Write a message that interrupts."""
    assert await shown(conversations.reply(KEY, "2", when_busy="interrupt")) == ["next"]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
@pytest.mark.parametrize("use", [read, await_result])
@pytest.mark.parametrize("act", [stop, reset, interrupt])
async def test_stop_ends_the_tool_at_work_and_the_reply(
    bot: Bot,
    elsewhere: bool,
    use: Callable[[Reply], Awaitable[object]],
    act: Callable[[Conversations], Awaitable[object]],
) -> None:
    """With `RunCancelled`, long before the tool's own time is up; the run is cancelled."""
    tool = Tool()
    bot.model.add(TOOL, "next")

    async with (
        bot.conversations(tools=[tool.wait], lease=1) as conversations,
        bot.conversations() as others,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stop_at, tool.called, others if elsewhere else conversations, act)
        with anyio.fail_after(20), pytest.raises(RunCancelled) as caught:
            await use(conversations.reply(KEY, "1"))

    assert tool.cancelled.is_set()
    error = caught.value
    assert error.run_id is not None
    assert error.thread_id is not None
    run = await bot.client.runs.retrieve(error.run_id, thread_id=error.thread_id)
    assert error.run.status == run.status == "cancelled"


async def test_stop_ends_the_tool_of_an_answer_that_was_found_again(bot: Bot) -> None:
    """A reply of `abandoned` calls tools before its block is entered."""
    first, second = Tool(), Tool()
    bot.model.add(TOOL)

    async with (
        bot.conversations(tools=[first.wait]) as conversations,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stop_at, first.called, conversations, Conversations.aclose)
        with pytest.raises(LeaseLostError):
            await shown(conversations.reply(KEY, "1"))

    async with (
        bot.conversations(tools=[second.wait]) as conversations,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stop_at, second.called, conversations, stop)
        reply = await anext(conversations.abandoned())
        with anyio.fail_after(20), pytest.raises(RunCancelled):
            await shown(reply)
        assert not (await conversations.status(KEY)).is_busy

    assert second.cancelled.is_set()


async def test_stop_that_did_not_reach_the_server_is_carried_out_by_who_answers(bot: Bot) -> None:
    """It raises, and is kept in the store."""
    tool = Tool()
    bot.model.add(TOOL)

    async def stop_without_server(_: Conversations) -> None:
        async with AsyncClient("http://127.0.0.1:1/v1", retry=RetryPolicy(max_retries=0)) as down:
            unreachable = Conversations(down, assistant_id=bot.assistant.id, store=bot.file)
            async with unreachable:
                with pytest.raises(APIConnectionError):
                    await unreachable.stop(KEY)

    async with (
        bot.conversations(tools=[tool.wait], lease=1) as conversations,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stop_at, tool.called, conversations, stop_without_server)
        with anyio.fail_after(20), pytest.raises(RunCancelled):
            await shown(conversations.reply(KEY, "1"))


async def test_answer_that_streams_ends_after_a_stop_that_did_not_reach_the_server(
    bot: Bot,
) -> None:
    """Whoever answers sends the cancel again when it renews its lease."""
    bot.model.add(Hang("For ever"))

    async with bot.conversations(lease=1) as conversations, bot.record() as change:
        with anyio.fail_after(20), pytest.raises(RunCancelled):
            await during(conversations.reply(KEY, "1"), partial(change, Record.stop))
