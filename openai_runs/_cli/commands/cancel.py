"""`openai-runs runs cancel`: end a run, whoever started it."""

from functools import partial

from openai_runs import OpenAIRunsError, RunStatus, RunWaitTimeout
from openai_runs._cli.commands.target import Target
from openai_runs._cli.connecting import explained, reached
from openai_runs._cli.describing import verdict
from openai_runs._cli.ending import ERROR, TIMED_OUT, Stop
from openai_runs._cli.interrupting import carry_out, show_outages
from openai_runs._cli.outputs import print_json, print_text, printable
from openai_runs._cli.terminal.outage import waiting_for

__all__ = ["cancel"]


def cancel(target: Target, *, timeout: float | None, as_json: bool) -> int:
    """Cancel the run, and print what it became; return 0 if that is `cancelled`.

    Raises:
        Stop: It cannot be cancelled, or the time was up.
        Closed: Nobody reads it.
    """
    target.check()
    show_outages()
    try:
        return carry_out(partial(_cancel, target, timeout, as_json=as_json))
    except RunWaitTimeout as error:
        raise Stop(str(error), TIMED_OUT) from error
    except OpenAIRunsError as error:
        raise explained(error, target.place, timed=timeout is not None) from error


async def _cancel(target: Target, timeout: float | None, *, as_json: bool) -> int:
    async with reached(target.place, at_work=True) as client:
        with waiting_for(target.run_id, client, "cancelling") as note:
            thread_id = await target.thread_of(client)
            run = await client.runs.cancel_and_wait(
                target.run_id, thread_id=thread_id, timeout=timeout, on_status=note
            )
    if as_json:
        print_json(run.to_dict())
    else:
        print_text(printable(f"{run.id} {verdict(run)}"))
    return 0 if run.status == RunStatus.CANCELLED else ERROR
