"""A program to be killed: it creates runs and waits for them, and goes on where it was killed.

Arguments: the URL, the id of the assistant, a journal, and "more" or "finish". It writes into the
journal what it is about to do and what was answered. Started again, it creates with the same
keys what was not answered, waits for what is not done, and with "more" creates more until killed.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from openai_runs import AsyncClient, PollPolicy, RetryPolicy, await_run
from tests.e2e.killing import mix

AT_ONCE = 4
"""Runs under way."""


class Journal:
    """What was begun, made and done, by key; a kill may cut off its last line."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        self.begun = [key for what, key, *_ in map(str.split, lines) if what == "begun"]
        self.made = {key: ids for what, key, *ids in map(str.split, lines) if what == "made"}
        self.done = {key for what, key, *_ in map(str.split, lines) if what == "done"}
        text = "".join(f"{line}\n" for line in lines)
        if path.exists() and path.read_text() != text:
            path.write_text(text)
        self._file = path.open("a")

    def write(self, *words: str) -> None:
        """Add a line; it outlives this process."""
        self._file.write(" ".join(words) + "\n")
        self._file.flush()


async def finish(client: AsyncClient, journal: Journal, assistant_id: str, key: str) -> None:
    """Create the run of this key, if its journal has none, and wait for its end."""
    if key in journal.made:
        run_id, thread_id = journal.made[key]
        run = await client.runs.retrieve(run_id, thread_id=thread_id)
    else:
        run = await client.threads.create_and_run(
            assistant_id=assistant_id,
            thread={"messages": [{"role": "user", "content": mix(key)}]},
            metadata={"key": key},
            idempotency_key=key,
        )
        journal.write("made", key, run.id, run.thread_id)
    run = await await_run(client, run, timeout=900)
    journal.write("done", key, run.status)


async def main(url: str, assistant_id: str, path: str, what: str) -> None:
    """Go on, and with "more" never end."""
    journal = Journal(Path(path))
    numbers = count(len(journal.begun))
    left = [key for key in journal.begun if key not in journal.done]

    async def work(client: AsyncClient) -> None:
        while left or what == "more":
            key = left.pop() if left else f"client-{next(numbers)}"
            if key not in journal.begun:
                journal.write("begun", key)
            await finish(client, journal, assistant_id, key)

    retry, poll = RetryPolicy(patience=300, maximum=1), PollPolicy(max_outage=300, maximum=1)
    async with AsyncClient(url, retry=retry, poll=poll) as client, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(client))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
