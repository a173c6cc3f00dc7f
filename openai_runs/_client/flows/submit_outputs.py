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
from openai_runs.types.runs import RequiredApproval, Run, UnknownToolCall

__all__ = ["SubmitFlow", "approvals_of"]


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
        body = _body(outputs)
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
        if not run.needs_action:
            return False
        waiting = {call.id for call in run.tool_calls} | {call.id for call in approvals_of(run)}
        return bool(waiting & self._submitted)


def approvals_of(run: Run) -> list[RequiredApproval]:
    """Return the calls that wait for approval, each id once."""
    action = run.required_action if run.needs_action else None
    if action is None or action.submit_tool_approval is None:
        return []
    calls = [_approval(call) for call in action.submit_tool_approval.tool_calls]
    return list({call.id: call for call in calls if call.id}.values())


def _approval(call: RequiredApproval | UnknownToolCall) -> RequiredApproval:
    """Return the call; of one in another shape what can be read, and all of it as arguments."""
    if isinstance(call, RequiredApproval):
        return call
    name = call.get("name")
    shown = name if isinstance(name, str) else ""
    return RequiredApproval(id=call.id, kind=call.type, name=shown, arguments=call.raw)


def _body(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body: answers that approve a call or not have a list of their own."""
    approvals = [one for one in outputs if "approve" in one]
    others = [one for one in outputs if "approve" not in one]
    if not approvals:
        return {"tool_outputs": others}
    return {"tool_approvals": approvals, **({"tool_outputs": others} if others else {})}
