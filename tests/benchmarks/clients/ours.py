"""Our client, used as its documentation says, with nothing turned off."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from openai_runs import AsyncClient, PollPolicy, RateLimits, RunResult
from openai_runs._protocol.endpoints import GET_RUN, LIST_RUNS
from openai_runs.types import MessageDeltaEvent
from tests.benchmarks import samples
from tests.benchmarks.clients.batches import arguments, carried_out, is_own
from tests.benchmarks.clients.stopwatch import (
    Outcome,
    enter,
    of_page,
    of_run,
    of_step,
    resident,
    spent,
)
from tests.benchmarks.clients.waits import Waiting, wait_for_all


async def retrieve(given: Mapping[str, Any]) -> Outcome:
    """Retrieve a run again and again."""
    async with AsyncClient(base_url=given["url"], api_key="k") as client:
        cpu, run = await spent(
            lambda: client.runs.retrieve("run_1", thread_id="thread_1"),
            count=given["count"],
            at_once=given["at_once"],
        )
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def create(given: Mapping[str, Any]) -> Outcome:
    """Create a run again and again."""
    body = given["body"]
    async with AsyncClient(base_url=given["url"], api_key="k") as client:
        cpu, run = await spent(lambda: client.runs.create("thread_1", **body), count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"run": of_run(run)}}


async def list_runs(given: Mapping[str, Any]) -> Outcome:
    """List a hundred runs again and again."""
    async with AsyncClient(base_url=given["url"], api_key="k") as client:

        async def listed() -> Any:
            return await client.runs.list("thread_1", limit=100)

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"runs": of_page(page, of_run)}}


async def list_steps(given: Mapping[str, Any]) -> Outcome:
    """List a hundred steps again and again."""
    async with AsyncClient(base_url=given["url"], api_key="k") as client:

        async def listed() -> Any:
            return await client.runs.steps.list("run_1", thread_id="thread_1", limit=100)

        cpu, page = await spent(listed, count=given["count"])
    return {"metrics": {"cpu": cpu}, "facts": {"steps": of_page(page, of_step)}}


async def stream(given: Mapping[str, Any]) -> Outcome:
    """Read a stream again and again."""
    keeps = given.get("snapshots", False)
    async with AsyncClient(base_url=given["url"], api_key="k") as client:

        async def read() -> tuple[int, int, str]:
            count = characters = 0
            async with client.runs.stream(given["thread"], assistant_id="asst_1") as events:
                async for event in events:
                    count += 1
                    if isinstance(event, MessageDeltaEvent):
                        characters += len(event.data.text)
            run = events.snapshot.run
            assert run is not None
            text = events.snapshot.text if keeps else ""
            return count, characters, f"{run.status} {len(text)}"

        cpu, (count, characters, end) = await spent(read, count=given["count"])
    facts = {"events": count, "characters": characters, "end": end}
    return {"metrics": {"cpu": cpu / count}, "facts": facts}


async def decode(given: Mapping[str, Any]) -> Outcome:
    """Decode the same bytes again and again."""
    many, count = given["many"], given["count"]
    body = samples.encode(
        samples.page([samples.run(n) for n in range(100)]) if many else samples.run(1)
    )
    runs = LIST_RUNS.spec({"thread_id": "thread_1"})
    run = GET_RUN.spec({"thread_id": "thread_1", "run_id": "run_1"})
    decoder: Any = runs.decode if many else run.decode
    for _ in range(count // 5):
        decoder(body)
    began = time.process_time()
    for _ in range(count):
        last = decoder(body)
    cpu = (time.process_time() - began) / count
    return {
        "metrics": {"cpu": cpu},
        "facts": {"it": of_page(last, of_run) if many else of_run(last)},
    }


async def wait(given: Mapping[str, Any]) -> Outcome:
    """Wait for many runs, at a fixed interval, or held back by a server that offers it."""
    hold, connections = given.get("long_poll", 0), given.get("connections", 100)
    interval = None if hold else given["interval"]
    limits = RateLimits(requests_per_minute=given.get("per_minute"))
    async with AsyncClient(
        base_url=given["url"],
        api_key="k",
        max_connections=connections,
        poll=PollPolicy(long_poll=hold),
        limits=limits,
    ) as client:
        ways = Waiting(
            lambda run_id, thread_id: client.runs.wait(
                run_id, thread_id=thread_id, interval=interval
            ),
            lambda body: client.threads.create_and_run(**body),
        )
        return await wait_for_all(ways, given)


async def batch(given: Mapping[str, Any]) -> Outcome:
    """Carry many runs out, and check that each outcome is its item's."""
    threads = given["threads"]
    items = ((n, arguments(n, threads=threads)) for n in range(given["items"]))
    async with AsyncClient(base_url=given["url"], api_key="k") as client:

        async def outcomes() -> AsyncGenerator[tuple[int, bool], None]:
            async with client.runs.map(
                items, concurrency=given["at_once"], assistant_id="asst_1"
            ) as results:
                async for number, outcome in results:
                    yield (
                        number,
                        isinstance(outcome, RunResult)
                        and is_own(number, outcome.run, outcome.text, len(outcome.steps)),
                    )

        return await carried_out(outcomes(), given)


async def bare(given: Mapping[str, Any]) -> Outcome:
    """Hold tasks that await a future and nothing more, and then a Run for each."""
    count = given["runs"]
    told = [samples.encode(samples.run(number, "in_progress")) for number in range(count)]
    decode = GET_RUN.spec({"thread_id": "thread_1", "run_id": "run_1"}).decode
    future = asyncio.get_running_loop().create_future()

    async def one() -> None:
        await future

    gc.collect()
    before = resident()
    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    await asyncio.sleep(0.1)
    tasked = resident()
    runs = [decode(body) for body in told]
    decoded = resident()
    future.set_result(None)
    await asyncio.gather(*tasks)
    metrics = {"task": (tasked - before) / count, "run": (decoded - tasked) / count}
    return {"metrics": metrics, "facts": {"runs": len(runs)}}


WORKS = {
    "bare": bare,
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
