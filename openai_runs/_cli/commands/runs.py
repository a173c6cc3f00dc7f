"""`openai-runs runs show` and `runs wait`: runs that are there, whoever started them."""

import time
from functools import partial
from typing import Final

from rich.console import Console
from rich.text import Text

from openai_runs import OpenAIRunsError, Run, RunResult, RunWaitTimeout
from openai_runs._cli.commands.target import Target
from openai_runs._cli.connecting import explained, reached
from openai_runs._cli.describing import describe, verdict
from openai_runs._cli.ending import TIMED_OUT, Stop, code_of
from openai_runs._cli.interrupting import carry_out, show_outages
from openai_runs._cli.outputs import print_json, print_text, printable
from openai_runs._cli.terminal.outage import waiting_for
from openai_runs._cli.terminal.timeline import draw

__all__ = ["show", "wait"]

_COLUMN: Final = 12
"""Characters before the words."""


def show(target: Target, *, as_json: bool) -> int:
    """Print the run with its steps and messages; return the exit code.

    Raises:
        Stop: It cannot be shown.
        Closed: Nobody reads it.
    """
    target.check()
    try:
        return carry_out(partial(_show, target, as_json=as_json))
    except OpenAIRunsError as error:
        raise explained(error, target.place) from error


def wait(target: Target, *, timeout: float | None, as_json: bool) -> int:
    """Wait until the run is settled and print its status; return the exit code of that.

    Raises:
        Stop: It cannot be waited for, or the time was up.
        Closed: Nobody reads it.
    """
    target.check()
    show_outages()
    try:
        return carry_out(partial(_wait, target, timeout, as_json=as_json))
    except RunWaitTimeout as error:
        raise Stop(str(error), TIMED_OUT) from error
    except OpenAIRunsError as error:
        raise explained(error, target.place, timed=timeout is not None) from error


async def _show(target: Target, *, as_json: bool) -> int:
    async with reached(target.place, at_work=False) as client:
        thread_id = await target.thread_of(client)
        run = await client.runs.retrieve(target.run_id, thread_id=thread_id)
        result = await client.runs.result(run)
    if as_json:
        print_json({"run": run.to_dict(), "steps": result.steps, "messages": result.messages})
    else:
        print_text(_shown(result))
    return 0


async def _wait(target: Target, timeout: float | None, *, as_json: bool) -> int:
    async with reached(target.place, at_work=True) as client:
        with waiting_for(target.run_id, client) as note:
            thread_id = await target.thread_of(client)
            try:
                run = await client.runs.wait(
                    target.run_id, thread_id=thread_id, timeout=timeout, on_status=note
                )
            except RunWaitTimeout as error:
                if as_json and isinstance(error.run, Run):
                    print_json(error.run.to_dict())
                raise
    if as_json:
        print_json(run.to_dict())
    else:
        print_text(printable(f"{run.id} {verdict(run)}"))
    return code_of(run.status)


def _shown(result: RunResult) -> str:
    """Return the result in words, dressed for standard output."""
    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        for name, words in describe(result):
            told = printable(words).replace("\n", f"\n{' ' * _COLUMN}")
            console.print(Text.assemble((f"{name:<{_COLUMN}}", "dim"), told), soft_wrap=True)
        console.print()
        draw(result.timeline(now=time.time()), console)
    return captured.get().removesuffix("\n")
