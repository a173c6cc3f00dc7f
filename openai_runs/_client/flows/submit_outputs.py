"""Submitting the outputs of tool calls exactly once, also when the answer is lost.

Where the answer is lost, the run is retrieved: whether it still waits for these outputs says
whether they arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai_runs._client.arguments import CallOptions, follow_up_options
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.polling.waiter import retrieve_run
from openai_runs._protocol.endpoints import SUBMIT_TOOL_OUTPUTS
from openai_runs._transport import StreamReply
from openai_runs.errors import APIError
from openai_runs.types.runs import Run

__all__ = ["SubmitFlow"]


class SubmitFlow:
    """One set of tool outputs, submitted once."""

    def __init__(
        self,
        pipeline: Pipeline,
        ids: Mapping[str, str],
        outputs: list[dict[str, Any]],
        options: CallOptions,
        *,
        stream: bool = False,
    ) -> None:
        """Build the request; nothing is sent yet."""
        self._pipeline = pipeline
        self._ids = ids
        self._submitted = {item.get("tool_call_id") for item in outputs}
        key = options.get("idempotency_key") or pipeline.settings.runtime.new_key()
        self._options: CallOptions = {**options, "idempotency_key": key}
        body: dict[str, Any] = {"tool_outputs": outputs}
        if stream:
            body["stream"] = True
        self._spec = pipeline.build_request(SUBMIT_TOOL_OUTPUTS, ids, options, body=body)

    async def make(self) -> Run:
        """Return the run, queued again.

        Raises:
            BadRequestError: A call is missing or unknown, or the run does not wait.
            APIError: The call failed.

        Cancellation: closes the request; the outputs may have arrived.
        """
        return await self._pipeline.send(self._spec, self._options, verify=self.verify)

    async def open(self, timeout: float | None) -> Run | StreamReply:
        """Return the stream of what follows; a `Run` if there is none.

        Raises and is cancelled as `make`; sent again later, it is still the same request.
        """
        in_time: CallOptions = {**self._options, "timeout": timeout}
        return await self._pipeline.open_stream(self._spec, in_time, verify=self.verify)

    async def verify(self, failure: APIError) -> Run | None:
        """Return the run if it no longer waits for what was submitted."""
        run = await retrieve_run(self._pipeline, self._ids, follow_up_options(self._options))
        return None if self.is_awaited_by(run) else run

    def is_awaited_by(self, run: Run) -> bool:
        """Return whether the run still waits for one of these outputs."""
        waiting = {call.id for call in run.tool_calls} if run.needs_action else set()
        return bool(waiting & self._submitted)
