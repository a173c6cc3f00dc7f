"""`openai-runs demo`: one run from a tool call to the answer, over real HTTP.

Only the model is played: its words, its pauses and its token counts are made up.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.status import Status
from rich.table import Table
from rich.text import Text

from openai_runs import AsyncClient, PollPolicy, Run, RunResult, RunStep, await_run
from openai_runs._cli.ending import TIMED_OUT, Stop, code_of
from openai_runs._cli.interrupting import carry_out
from openai_runs.errors import OpenAIRunsError, RunWaitTimeout
from openai_runs.server import (
    Call,
    CallTools,
    LocalServer,
    ModelRequest,
    Say,
    ScriptedBackend,
    ScriptedTurn,
)
from openai_runs.types.runs import Usage
from openai_runs.types.steps import FunctionToolCall

__all__ = ["perform"]

_QUESTION: Final = "Hi! Where is my order 1042?"
_INSTRUCTIONS: Final = "You help the customers of a furniture shop. Look orders up, never guess."
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up_order",
        "description": "Return what is known of an order.",
        "parameters": {
            "type": "object",
            "properties": {"order_number": {"type": "string"}},
            "required": ["order_number"],
        },
    },
}
_ORDERS: Final = {
    "1042": {"item": "walnut bookshelf", "state": "left our warehouse", "arrives": "Thursday"},
    "1043": {"item": "reading lamp", "state": "been packed", "arrives": "Friday"},
}
_COLUMNS: Final[list[tuple[str, JustifyMethod]]] = [
    ("step", "left"),
    ("what for", "left"),
    ("status", "left"),
    ("waited", "right"),
    ("tokens in", "right"),
    ("out", "right"),
]
_NAME: Final = 12
"""Columns before what is said."""
_DIGITS: Final = r"\d+"
_CAPTION: Final = "waited: by the clock of this client; tokens: as the server counts them"
_POLL: Final = PollPolicy(long_poll=0)
"""Ask again and again: a held request would answer only after `in_progress` is over."""
_PATIENCE: Final = 30.0
"""Seconds; the dialogue takes two."""
_NEXT: Final = """\

What next:
  the same server on a file, for any client of this protocol:
    {command} serve
  the server with a model of yours:
    {command} serve --model-url http://127.0.0.1:11434/v1
  the same in Python, and everything else: docs/pages/index.md, in the clone"""


def look_up_order(order_number: str) -> dict[str, str]:
    """Return what is known of an order: the function the model asks for."""
    return _ORDERS.get(order_number, {"error": f"there is no order {order_number}"})


def perform() -> int:
    """Show the demo; return the exit code.

    Raises:
        Stop: Something is wrong with this machine, or with this package.
    """
    # Nothing is markup: what is shown comes over the wire.
    console = Console(markup=False, emoji=False, highlight=False)
    try:
        return carry_out(partial(_show, console))
    except RunWaitTimeout as error:
        raise Stop(str(error), TIMED_OUT) from error
    except (OpenAIRunsError, OSError) as error:
        sentence = f"the demo could not go on: {error}"
        raise Stop(sentence) from error


async def _show(console: Console) -> int:
    backend = ScriptedBackend(_model)
    async with (
        LocalServer(backend=backend) as server,
        AsyncClient(server.url, api_key="demo") as client,
    ):
        console.print(f"A server on {server.url}, with a temporary database.", soft_wrap=True)
        console.print("The model is played: its words, pauses and token counts are made up.\n")
        return await Demo(client, console).run()


class Demo:
    """One showing."""

    def __init__(self, client: AsyncClient, console: Console) -> None:
        self._client = client
        self._console = console
        self._began = time.monotonic()
        self._status = ""
        self._spinner: Status | None = None

    async def run(self) -> int:
        """Return the exit code, once all is shown."""
        client = self._client
        assistant = await client.assistants.create(
            model="scripted", name="Order desk", instructions=_INSTRUCTIONS, tools=[_TOOL]
        )
        thread = await client.threads.create()
        for name, value in (
            ("assistant", f"{assistant.id}, with the function look_up_order"),
            ("thread", thread.id),
            ("user", _QUESTION),
        ):
            self._say(name, value)
        self._began = began = time.monotonic()
        run = await client.runs.create(
            thread.id,
            assistant_id=assistant.id,
            additional_messages=[{"role": "user", "content": _QUESTION}],
        )
        self._say("run", run.id)
        self._note(run)
        waited = []
        while (run := await self._wait(run)).needs_action:
            waited.append(time.monotonic() - began)
            run = await self._answer_tools(run)
            began = time.monotonic()
        waited.append(time.monotonic() - began)
        self._conclude(await client.runs.result(run), waited)
        return code_of(run.status)

    async def _wait(self, run: Run) -> Run:
        with self._waiting():
            run = await await_run(
                self._client, run, timeout=_PATIENCE, poll=_POLL, on_status=self._note
            )
        self._note(run)
        return run

    async def _answer_tools(self, run: Run) -> Run:
        outputs = []
        for call in run.tool_calls:
            name, arguments = call.function.name, call.function.arguments
            self._say("", f"the model asks for {name}({arguments})")
            output = look_up_order(**msgspec.json.decode(arguments))
            said = msgspec.json.format(msgspec.json.encode(output), indent=0).decode()
            self._say("", f"a Python function answers {said}")
            outputs.append({"tool_call_id": call.id, "output": output})
        run = await self._client.runs.submit_tool_outputs(
            run.id, thread_id=run.thread_id, tool_outputs=outputs
        )
        self._note(run)
        return run

    def _note(self, run: Run) -> None:
        """Show a status that was not shown yet."""
        if run.status == self._status:
            return
        self._status = run.status
        self._say(f"{time.monotonic() - self._began:6.2f} s", run.status, "bold cyan")
        if self._spinner is not None:
            self._spinner.update(f"waiting: {run.status}")

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """On a terminal, show that something is going on."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(f"waiting: {self._status}") as self._spinner:
            yield
        self._spinner = None

    def _say(self, name: str, value: str, style: str = "") -> None:
        """Show a line; on a terminal it is wrapped at words, below where the value begins."""
        head = Text(f"{name:<{_NAME}}", "dim")
        left = max(self._console.width - _NAME, 1)
        is_wrapped = self._console.is_terminal
        text = Text(value, style)
        for line in text.wrap(self._console, left) if is_wrapped else [text]:
            self._console.print(Text.assemble(head, line), soft_wrap=True)
            head = Text(" " * _NAME)

    def _conclude(self, result: RunResult, waited: list[float]) -> None:
        self._say("answer", result.text, "bold")
        self._console.print("\nSteps of the run")
        table = Table(box=SIMPLE_HEAD, caption=_CAPTION, caption_justify="left")
        for title, justify in _COLUMNS:
            table.add_column(title, justify=justify)
        for step, seconds in zip(result.steps, waited, strict=True):
            table.add_row(step.type, _purpose(step), step.status, *_costs(seconds, step.usage))
        table.add_section()
        run = result.run
        table.add_row("run", "", run.status, *_costs(sum(waited), run.usage))
        self._console.print(table)
        self._console.print(_NEXT.format(command=_command()), soft_wrap=True)


def _command() -> str:
    """Return how this command can be called again from here."""
    if shutil.which("openai-runs"):
        return "openai-runs"
    script = Path(sys.argv[0])
    return os.path.relpath(script) if script.name == "openai-runs" else "python -m openai_runs"


def _purpose(step: RunStep) -> str:
    names = [call.function.name for call in step.tool_calls if isinstance(call, FunctionToolCall)]
    return ", ".join(names) or "the answer"


def _costs(seconds: float, usage: Usage | None) -> list[str]:
    """Return the cells for time and tokens."""
    tokens = ["-"] * 2 if usage is None else [usage.prompt_tokens, usage.completion_tokens]
    return [f"{seconds:.2f} s", *map(str, tokens)]


def _model(request: ModelRequest) -> ScriptedTurn:
    """Return what the played model does: look the order up, then tell what was found."""
    if not request.turns:
        number = "".join(re.findall(_DIGITS, request.question)[:1])
        return CallTools(
            [Call("look_up_order", {"order_number": number})],
            delay=0.7,
            usage=Usage(prompt_tokens=96, completion_tokens=19, total_tokens=115),
        )
    order = msgspec.json.decode(request.turns[-1].tool_calls[0].function.output or "{}")
    return Say(
        f"Good news: your {order['item']} has {order['state']} and arrives on {order['arrives']}.",
        delay=0.9,
        usage=Usage(prompt_tokens=141, completion_tokens=22, total_tokens=163),
    )
