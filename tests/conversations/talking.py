"""A bot with a scripted model, for the tests of conversations."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from openai_runs import (
    Assistant,
    AsyncClient,
)
from openai_runs.conversations import Conversations, Reply, SQLiteStore
from openai_runs.conversations.access import Access
from openai_runs.server import ScriptedBackend

KEY = ("ada", 7)


class Bot:
    """A server with a scripted model, a client, and conversations in a file."""

    def __init__(self, model: ScriptedBackend, client: AsyncClient, folder: Path) -> None:
        self.model = model
        self.client = client
        self.file = folder / "conversations.db"
        self.assistant: Assistant

    def conversations(self, **options: Any) -> Conversations:
        """Return conversations in the file, as one process has them."""
        options.setdefault("store", self.file)
        return Conversations(
            self.client, assistant_id=self.assistant.id, **{"every": 0.01, **options}
        )

    @asynccontextmanager
    async def record(self) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
        """Yield what makes moves of the conversation."""
        store = SQLiteStore(self.file)
        yield partial(Access(self.client, store, 15).change, '["ada",7]')
        await store.aclose()

    async def texts(self) -> list[str]:
        """Return the texts on the conversation's present thread."""
        async with self.record() as change:
            thread_id = await change(lambda record: record.thread_id)
        return [one.text async for one in self.client.messages.list(thread_id, order="asc")]


async def shown(reply: Reply) -> list[str]:
    """Return the snapshots of a reply."""
    async with reply:
        return [text async for text in reply]


async def until_abandoned_ends(bot: Bot) -> None:
    """Have what was left answered until that has ended, however it does."""
    ended = anyio.Event()

    async def answer(reply: Reply) -> None:
        try:
            await shown(reply)
        finally:
            ended.set()

    async with bot.conversations() as conversations, anyio.create_task_group() as tasks:
        tasks.start_soon(conversations.answer_abandoned, answer)
        with anyio.fail_after(20):
            await ended.wait()
        await conversations.aclose()


async def during(reply: Reply, act: Callable[[], Awaitable[object]]) -> None:
    """Enter a reply, and act at each of its snapshots."""
    async with reply:
        async for _ in reply:
            await act()
