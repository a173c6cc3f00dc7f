"""The official client, of the interpreter that runs this file; `transport` says over what."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from openai import APIError, AsyncOpenAI, DefaultAioHttpClient
from openai._models import construct_type
from openai.pagination import AsyncCursorPage
from openai.types.beta.threads import Run

from tests.benchmarks import samples
from tests.benchmarks.clients.batches import arguments, carried_out, is_own
from tests.benchmarks.clients.stopwatch import (
    Outcome,
    enter,
    of_page,
    of_run,
    of_step,
    spent,
)
from tests.benchmarks.clients.waits import Waiting, wait_for_all

warnings.simplefilter("ignore", DeprecationWarning)


def client_of(given: Mapping[str, Any]) -> AsyncOpenAI:
    """Return the client for this process."""
    http_client = DefaultAioHttpClient() if given["transport"] == "aiohttp" else None
    return AsyncOpenAI(base_url=given["url"], api_key="k", http_client=http_client)


async def retrieve(given: Mapping[str, Any]) -> Outcome:
    """Retrieve a run again and again."""
    async with client_of(given) as client:
        runs = client.beta.threads.runs
        cpu, run = await spent(
            lambda: runs.retrieve("run_1", thread_id="thread_1"),
            count=given["count"],
            at_once=given["at_once"],
        )
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def create(given: Mapping[str, Any]) -> Outcome:
    """Create a run again and again."""
    body = given["body"]
    async with client_of(given) as client:
        runs = client.beta.threads.runs
        cpu, run = await spent(lambda: runs.create("thread_1", **body), count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def list_runs(given: Mapping[str, Any]) -> Outcome:
    """List a hundred runs again and again."""
    async with client_of(given) as client:

        async def listed() -> Any:
            return await client.beta.threads.runs.list("thread_1", limit=100)

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"runs": of_page(page, of_run)}}


async def list_steps(given: Mapping[str, Any]) -> Outcome:
    """List a hundred steps again and again."""
    async with client_of(given) as client:

        async def listed() -> Any:
            steps = client.beta.threads.runs.steps
            return await steps.list("run_1", thread_id="thread_1", limit=100)

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"steps": of_page(page, of_step)}}


async def stream(given: Mapping[str, Any]) -> Outcome:
    """Read a stream again and again: raw events, or the helper where snapshots are kept."""
    async with client_of(given) as client:
        runs, thread = client.beta.threads.runs, given["thread"]

        async def raw() -> tuple[int, int, str]:
            count = characters = 0
            status = ""
            async for event in await runs.create(thread, assistant_id="asst_1", stream=True):
                count += 1
                if event.event == "thread.message.delta":
                    characters += len(event.data.delta.content[0].text.value)
                elif event.event.startswith("thread.run.") and "step" not in event.event:
                    status = event.data.status
            return count, characters, f"{status} 0"

        async def helped() -> tuple[int, int, str]:
            count = characters = 0
            async with runs.stream(thread_id=thread, assistant_id="asst_1") as events:
                async for event in events:
                    count += 1
                    if event.event == "thread.message.delta":
                        characters += len(event.data.delta.content[0].text.value)
                run = await events.get_final_run()
                message = (await events.get_final_messages())[0]
            return count, characters, f"{run.status} {len(message.content[0].text.value)}"

        read = helped if given.get("snapshots", False) else raw
        cpu, (count, characters, end) = await spent(read, count=given["count"])
    facts = {"events": count, "characters": characters, "end": end}
    return {"metrics": {"cpu": cpu / count}, "facts": facts}


async def decode(given: Mapping[str, Any]) -> Outcome:
    """Decode the same bytes again and again, as the client does with an answer's body."""
    many, count = given["many"], given["count"]
    body = samples.encode(
        samples.page([samples.run(n) for n in range(100)]) if many else samples.run(1)
    )
    into: Any = AsyncCursorPage[Run] if many else Run
    for _ in range(max(count // 5, 1)):
        construct_type(value=json.loads(body), type_=into)
    began = time.process_time()
    for _ in range(count):
        last: Any = construct_type(value=json.loads(body), type_=into)
    cpu = (time.process_time() - began) / count
    return {
        "metrics": {"cpu": cpu},
        "facts": {"it": of_page(last, of_run) if many else of_run(last)},
    }


async def wait(given: Mapping[str, Any]) -> Outcome:
    """Wait for many runs with the client's own polling."""
    async with client_of(given) as client:
        runs, interval = client.beta.threads.runs, int(given["interval"] * 1000)
        ways = Waiting(
            lambda run_id, thread_id: runs.poll(
                run_id, thread_id=thread_id, poll_interval_ms=interval
            ),
            lambda body: client.beta.threads.create_and_run(**body),
        )
        return await wait_for_all(ways, given)


async def batch(given: Mapping[str, Any]) -> Outcome:
    """Carry many runs out, as one does without a call for it: a semaphore and tasks."""
    async with client_of(given) as client:
        runs, turn = client.beta.threads.runs, asyncio.Semaphore(given["at_once"])

        async def one(number: int) -> tuple[int, bool]:
            body = {"assistant_id": "asst_1", **arguments(number, threads=given["threads"])}
            make = (
                runs.create_and_poll
                if given["threads"]
                else client.beta.threads.create_and_run_poll
            )
            async with turn:
                try:
                    run = await make(**body, poll_interval_ms=500)
                    said = await client.beta.threads.messages.list(run.thread_id, run_id=run.id)
                    steps = await runs.steps.list(run.id, thread_id=run.thread_id)
                except APIError:
                    return number, False
            text = said.data[0].content[0].text.value
            return number, is_own(number, run, text, len(steps.data))

        async def outcomes() -> AsyncGenerator[tuple[int, bool], None]:
            tasks = [asyncio.ensure_future(one(number)) for number in range(given["items"])]
            for next_one in asyncio.as_completed(tasks):
                yield await next_one

        return await carried_out(outcomes(), given)


WORKS = {
    "batch": batch,
    "retrieve": retrieve,
    "create": create,
    "list_runs": list_runs,
    "list_steps": list_steps,
    "stream": stream,
    "decode": decode,
    "wait": wait,
}

if __name__ == "__main__":
    enter(WORKS)
