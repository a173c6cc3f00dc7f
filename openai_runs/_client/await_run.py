"""`await_run`: `client.runs.wait` as a function."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from openai_runs._client.arguments import Reaction, StatusCallback
from openai_runs._client.client import AsyncClient
from openai_runs.config import PollPolicy
from openai_runs.types.runs import Run

__all__ = ["await_run"]


def await_run(
    client: AsyncClient,
    run: Run | str,
    *,
    thread_id: str | None = None,
    timeout: float | None = None,
    request_timeout: float | None = None,
    poll: PollPolicy | None = None,
    interval: float | None = None,
    on_status: StatusCallback | None = None,
    on_timeout: Reaction = "leave",
    on_cancel: Reaction = "leave",
) -> Coroutine[Any, Any, Run]:
    """Wait until the run is finished or requires action, then return it.

    Endpoint: GET /threads/{thread_id}/runs/{run_id}   (repeated)

    Args:
        client: The client that polls.
        run: The run, or its id. A finished `Run` is returned without a request; any other
            is polled first.
        thread_id: The thread's id; needed with a run id.
        timeout: Seconds for the whole wait, counted from the call. None: what the run has
            left by the server's own clock plus 10 s, or 600 s where the server names no
            expiry; `math.inf` waits without end.
        request_timeout: Seconds one poll's answer may take beyond what the server was asked
            to hold it (default 10).
        poll: How to pace the polls; the client's policy if None.
        interval: Seconds between polls in place of the policy's; the server's
            `openai-poll-after-ms` wins where it is sent.
        on_status: Called with the run on each change of its status; may be async. What it
            raises ends the wait.
        on_timeout: `cancel` asks the server to cancel the run when the time is up.
        on_cancel: `cancel` asks the same when the waiting task is cancelled.

    Returns:
        The last `Run` seen: finished, `requires_action`, or of a status this version does
        not know.

    Raises:
        RunWaitTimeout: The time was up; `.run` is the last state seen. The run goes on.
        APIConnectionError: No usable answer for `PollPolicy.max_outage` seconds.
        APIStatusError: A poll was rejected for good, such as 401 or 404.

    Cancellation: leaves the run alone unless `on_cancel="cancel"`, which delays the
    cancellation by at most 5 s.
    """
    return client.runs.wait(
        run,
        thread_id=thread_id,
        timeout=timeout,
        request_timeout=request_timeout,
        poll=poll,
        interval=interval,
        on_status=on_status,
        on_timeout=on_timeout,
        on_cancel=on_cancel,
    )
