"""Model endpoints: whether they can be reached, and answer a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from openai_runs import AsyncClient, OpenAIRunsError, Run, RunStatus
from openai_runs._diagnosis.finding import Finding

if TYPE_CHECKING:
    from openai_runs.server import Backend
    from openai_runs.server.backends.probe import EndpointState

__all__ = ["check_models"]

_PROBE_TIMEOUT: Final = 5.0
"""Seconds for the list of models."""
_RUN_TIMEOUT: Final = 60.0
"""Seconds for the answer to one short question: a model may have to be loaded first."""
_QUESTION: Final = "Answer with the word OK."
_MAX_TOKENS: Final = 256
"""Tokens of the answer: the least that the API allows to ask for."""
_ANSWERED: Final = (RunStatus.COMPLETED, RunStatus.INCOMPLETE)


async def check_models(
    endpoints: Mapping[str, Backend], models: Mapping[str, str | None]
) -> list[Finding]:
    """Return of each endpoint whether it lists models, and answers one short question.

    Args:
        endpoints: By name.
        models: The model to ask of each; None: the first that it lists.

    Cancellation: ends the question.
    """
    from openai_runs.server.backends.probe import probe_endpoints  # needs the extra

    findings = []
    for name, backend in endpoints.items():
        for state in await probe_endpoints(backend, _PROBE_TIMEOUT):
            findings.append(_reached(state))
            if state.is_reachable and not state.problem:
                model = models.get(name) or next(iter(state.models or ()), None)
                findings.append(await _ask(backend, state.url, model))
    return findings


def _reached(state: EndpointState) -> Finding:
    if not state.is_reachable:
        return Finding(
            topic="model",
            state="fail",
            text=f"{state.url} is not reachable: {state.problem}",
            advice="is it running? The URL is what stands before /chat/completions",
        )
    if state.problem:
        return Finding(
            topic="model",
            state="fail",
            text=f"{state.url}: {state.problem}",
            advice="is the key right, and the path, often /v1?",
        )
    if state.models is None:
        return Finding(topic="model", state="ok", text=f"{state.url}: lists no models")
    return Finding(topic="model", state="ok", text=f"{state.url}: {len(state.models)} models")


async def _ask(backend: Backend, url: str, model: str | None) -> Finding:
    """Return whether a run on a server in front of the endpoint is answered."""
    if model is None:
        text, advice = f"{url}: not asked, as no model is known", "name one with --model"
        return Finding(topic="answer", state="warn", text=text, advice=advice)
    began = time.monotonic()
    try:
        run = await _run(backend, model)
    except OpenAIRunsError as error:
        return Finding(topic="answer", state="fail", text=f"{url}, {model}: {error}")
    if run.status in _ANSWERED:
        seconds = time.monotonic() - began
        return Finding(topic="answer", state="ok", text=f"{url}, {model}: in {seconds:.1f} s")
    reason = run.last_error.message if run.last_error is not None else run.status
    text = f"{url}, {model}: {reason}"
    return Finding(topic="answer", state="fail", text=text, advice="try another --model")


async def _run(backend: Backend, model: str) -> Run:
    async with AsyncClient.local(backend=_Kept(backend)) as client:
        assistant = await client.assistants.create(model=model)
        return await client.threads.create_and_run_poll(
            assistant_id=assistant.id,
            thread={"messages": [{"role": "user", "content": _QUESTION}]},
            max_completion_tokens=_MAX_TOKENS,
            timeout=_RUN_TIMEOUT,
        )


class _Kept:
    """A backend that the server does not close: who made it does."""

    def __init__(self, backend: Backend) -> None:
        self.respond = backend.respond
