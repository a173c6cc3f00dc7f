"""A bot as a process of its own: `python -m tests.conversations.bot URL FILE ASSISTANT LEASE MODE`.

It reads messages as lines of JSON, `[user, text]`, and prints what becomes of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from functools import partial

import anyio

from openai_runs import AsyncClient, RunCancelled
from openai_runs.conversations import Conversations, Reply

EVERY = 0.02


def say(what: str, reply: Reply) -> None:
    """Print an event of a reply."""
    print(json.dumps([what, reply.key, reply.text]), flush=True)  # noqa: T201


async def answer(reply: Reply) -> None:
    """Answer one message."""
    try:
        async with reply:
            begun = False
            async for _ in reply:
                if not begun:
                    say("begun", reply)
                begun = True
            say("merged" if reply.is_merged else "answered", reply)
    except RunCancelled:
        say("cancelled", reply)


async def lines() -> AsyncIterator[str]:
    """Yield the lines of standard input."""
    while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield line


async def main(url: str, file: str, assistant_id: str, lease: str, mode: str) -> None:
    """Answer until the process is ended."""
    async with (
        AsyncClient(url, api_key="none") as client,
        Conversations(
            client,
            assistant_id=assistant_id,
            store=file,
            lease=float(lease),
            when_busy=mode,  # type: ignore[arg-type]  # one of the three
            every=EVERY,
        ) as conversations,
        anyio.create_task_group() as tasks,
    ):

        async def adopt() -> None:
            async for reply in conversations.abandoned():
                tasks.start_soon(answer, reply)

        tasks.start_soon(adopt)
        print('["ready"]', flush=True)  # noqa: T201
        async for line in lines():
            user, text = json.loads(line)
            tasks.start_soon(answer, conversations.reply(user, text))


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
