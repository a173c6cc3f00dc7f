"""A server killed with `kill -9` under a waiting client: the wait survives, nothing is doubled."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import anyio

from openai_runs import AsyncClient, PollPolicy, Run, RunStatus, await_run
from tests.support import Action, Answer, HostileServer, Received, without_list

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
PATIENT = PollPolicy(maximum=0.2, max_outage=40)


class Model:
    """A chat-completions endpoint that can be made to think for ever."""

    def __init__(self) -> None:
        self.thinking = anyio.Event()
        self.released = anyio.Event()

    async def answer(self, request: Received) -> Action:
        """Answer as the last message says: think, ask for a tool, or reply."""
        messages = request.json["messages"]
        last = messages[-1]
        text = str(last["content"])
        if "think" in text:
            self.thinking.set()
            await self.released.wait()
        if "tool" in text and last["role"] == "user":
            function = {"name": "look_up", "arguments": "{}"}
            call = {"id": "call_1", "type": "function", "function": function}
            return self._choice({"tool_calls": [call]}, "tool_calls")
        return self._choice({"content": f"answer to {text}"}, "stop")

    def _choice(self, message: dict[str, Any], reason: str) -> Answer:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return Answer(json={"object": "chat.completion", "choices": [choice], "usage": usage})


async def serve(database: Path, model_url: str, port: int = 0) -> tuple[Process, str]:
    """Start `openai-runs serve` and return it with its URL."""
    command = f"-m openai_runs serve --port {port} --db {database} --model-url {model_url}"
    process = await asyncio.create_subprocess_exec(sys.executable, *command.split(), stdout=PIPE)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("listening on "), line
    return process, line.split()[-1]


async def start(client: AsyncClient, assistant_id: str, text: str) -> Run:
    """Return a new run on a new thread that begins with `text`."""
    return await client.threads.create_and_run(
        assistant_id=assistant_id, thread={"messages": [{"role": "user", "content": text}]}
    )


async def test_waits_end_when_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    """A run at work is done anew, a waiting one waits on, a finished one is as it was."""
    model, database = Model(), tmp_path / "runs.db"
    async with HostileServer(without_list(model.answer)) as models:
        process, url = await serve(database, models.url)
        async with AsyncClient(url, poll=PATIENT) as client:
            assistant = await client.assistants.create(model="m", tools=[TOOL])
            finished = await await_run(client, await start(client, assistant.id, "hi"), timeout=30)
            waiting = await await_run(
                client, await start(client, assistant.id, "use the tool"), timeout=30
            )
            working = await start(client, assistant.id, "think")
            await model.thinking.wait()
            at_work = asyncio.Event()

            def watch(run: Run) -> None:
                if run.status == RunStatus.IN_PROGRESS:
                    at_work.set()

            async with asyncio.TaskGroup() as group:
                waiter = await_run(client, working, timeout=50, on_status=watch)
                wait = group.create_task(waiter)
                await at_work.wait()
                process.kill()
                await process.wait()
                model.released.set()
                process, again = await serve(database, models.url, int(url.split(":")[2][:-3]))

            assert again == url
            await check_done_once(client, wait.result())
            assert await client.runs.retrieve(waiting.id, thread_id=waiting.thread_id) == waiting
            await check_goes_on(client, waiting)
            assert await client.runs.retrieve(finished.id, thread_id=finished.thread_id) == finished
        process.terminate()
        assert await process.wait() == 0


async def check_done_once(client: AsyncClient, run: Run) -> None:
    """The run that was at work is completed, with one message and one completed step."""
    result = await client.runs.result(run)
    assert run.status == RunStatus.COMPLETED
    assert [message.text for message in result.messages] == ["answer to think"]
    assert [step.status for step in result.steps].count("completed") == 1


async def check_goes_on(client: AsyncClient, waiting: Run) -> None:
    """The run that waits takes its output and completes."""
    outputs = [{"tool_call_id": waiting.tool_calls[0].id, "output": "42"}]
    run = await client.runs.submit_tool_outputs_and_poll(
        waiting.id, thread_id=waiting.thread_id, tool_outputs=outputs, timeout=30
    )
    assert (await client.runs.result(run)).text == "answer to 42"
