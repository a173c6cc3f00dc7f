"""Whether model endpoints can be reached, for whoever starts or checks a server.

One harmless request each: for the list of models, which nearly all have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol, runtime_checkable

import anyio
import msgspec

from openai_runs._protocol.error_mapping import error_facts
from openai_runs._transport import Transport
from openai_runs.errors import APIConnectionError, OpenAIRunsError
from openai_runs.server.backends.base import Backend
from openai_runs.server.backends.models import NO_LIST, read_models, request_list

__all__ = ["EndpointState", "ProbesEndpoints", "probe_endpoint", "probe_endpoints"]

_EXCERPT: Final = 200
"""Characters of what an endpoint said."""


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """What one request to a model endpoint showed."""

    url: str
    """What stands before `/chat/completions`, without a user or a query."""
    problem: str = ""
    """Why it cannot be used; empty: it can be reached."""
    is_reachable: bool = True
    """Whether it answered at all."""
    models: list[str] | None = None
    """Its models; None where it does not list them."""


@runtime_checkable
class ProbesEndpoints(Protocol):
    """A backend that has model endpoints behind it."""

    async def probe(self, timeout: float) -> list[EndpointState]:
        """Return what one request to each endpoint shows; raises nothing of theirs."""
        ...

    @property
    def endpoint_urls(self) -> list[str]:
        """Return the URLs of the endpoints, without users and queries."""
        ...


async def probe_endpoints(backend: Backend, timeout: float) -> list[EndpointState]:
    """Return what one request to each endpoint of a backend shows; none where it has none.

    Args:
        backend: Any.
        timeout: Seconds for each of them, at the same time.

    Cancellation: closes the requests.
    """
    return await backend.probe(timeout) if isinstance(backend, ProbesEndpoints) else []


async def probe_endpoint(
    transport: Transport,
    url: str,
    *,
    headers: Mapping[str, str],
    secrets: Collection[str],
    timeout: float,
) -> EndpointState:
    """Ask one endpoint for its models.

    Args:
        transport: What it is asked through.
        url: What stands before `/models`, and is shown without what follows `?`.
        headers: With its key.
        secrets: What is shown nowhere.
        timeout: Seconds.

    Cancellation: closes the request.
    """
    shown = url.partition("?")[0]
    try:
        with anyio.fail_after(timeout):
            reply = await request_list(transport, f"{url}/models", headers, timeout)
    except TimeoutError:
        problem = f"no answer within {timeout:g} s"
        return EndpointState(url=shown, problem=problem, is_reachable=False)
    except OpenAIRunsError as error:
        reason = str(error).partition(" (GET ")[0]
        is_reachable = not isinstance(error, APIConnectionError)
        return EndpointState(url=shown, problem=reason, is_reachable=is_reachable)
    if reply.status in NO_LIST:
        return EndpointState(url=shown)
    if reply.status != 200:
        said = error_facts(reply.content, tuple(secrets)).get("message", "")[:_EXCERPT]
        return EndpointState(url=shown, problem=f"HTTP {reply.status}{f': {said}' if said else ''}")
    models = read_models(reply.content)
    return EndpointState(url=shown, models=None if models is None else [one.id for one in models])
