"""Routes: the table of endpoints, each row with the handler that has its name.

What lives here: from an aiohttp request to the call of a handler, and from what that returns to
the answer. What may not: what an operation does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from inspect import iscoroutinefunction
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from aiohttp import web

from openai_runs._protocol import endpoints
from openai_runs._protocol.endpoints import STREAM_RUN, Endpoint
from openai_runs.server.api_errors import Replay
from openai_runs.server.http import foreign_requests, request_parsing
from openai_runs.server.http.handlers import Call, Service
from openai_runs.server.http.outgoing import Outgoing, Reply
from openai_runs.server.http.sse_response import Streamer
from openai_runs.server.objects.builders import given
from openai_runs.server.store import RunState, StreamStart
from openai_runs.types.base import Answer, Request

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler as AiohttpHandler

__all__ = ["SERVICE", "STREAMER", "Handler", "Limits", "find_handlers", "route"]

Handler: TypeAlias = Callable[[Call], Awaitable[Answer | RunState | StreamStart]]

SERVICE: Final = web.AppKey("service", Service)
STREAMER: Final = web.AppKey("streamer", Streamer)


class Limits(msgspec.Struct, frozen=True):
    """What a request body may be."""

    max_bytes: int
    timeout: float
    """Seconds within which it must arrive."""


def find_handlers(module: ModuleType) -> dict[Endpoint[Any], Handler]:
    """Return the handler of each row of the table: the coroutine with its name in lower case.

    Raises:
        LookupError: A row has no handler, or a handler has no row.
    """
    table = {
        name.lower(): row for name, row in vars(endpoints).items() if isinstance(row, Endpoint)
    }
    found = {
        name: value
        for name, value in vars(module).items()
        if iscoroutinefunction(value) and not name.startswith("_")
    }
    if table.keys() != found.keys():
        missing, superfluous = table.keys() - found.keys(), found.keys() - table.keys()
        message = (
            f"handlers do not fit the table of endpoints: missing {sorted(missing)}, "
            f"superfluous {sorted(superfluous)}"
        )
        raise LookupError(message)
    return {row: found[name] for name, row in table.items()}


def route(
    endpoint: Endpoint[Any], handler: Handler, limits: Limits, outgoing: Outgoing
) -> AiohttpHandler:
    """Return what aiohttp calls for one row of the table."""

    async def serve(request: web.Request) -> web.StreamResponse:
        foreign_requests.check_version(request.headers.getall("openai-beta", ()))
        text = await request_parsing.read_body(request, limits.max_bytes, limits.timeout)
        body = None if endpoint.body is None else request_parsing.decode_body(endpoint.body, text)
        posted = request.method == "POST"
        if posted:  # what is made of a large body is a large answer
            outgoing.ensure_capacity(len(text))
        call = _parse(request, endpoint, text, body)
        streamer = request.app[STREAMER]
        with call.service.subscribers.slot() if call.streamed else nullcontext():
            try:
                answer = await handler(call)
            except Replay as replay:
                if not call.streamed or replay.status_code != 200:
                    whole = await call.store.shared_json.join(replay.body)
                    outgoing.ensure_capacity(len(whole))
                    raise Replay(replay.status_code, whole) from None
                answer = await streamer.start_again(replay)
                call.headers["idempotent-replayed"] = "true"
            if isinstance(answer, StreamStart):
                return await streamer.send(request, answer, call.headers)
        if isinstance(answer, RunState):
            reply = await call.store.shared_json.join(answer.stored)
        else:
            reply = msgspec.json.encode(answer)
        outgoing.ensure_capacity(len(reply), done=posted)
        return Reply(outgoing, 200, reply, call.headers)

    return serve


def _parse(
    request: web.Request, endpoint: Endpoint[Any], text: bytes, body: Request | None
) -> Call:
    """Return the request as its handler gets it."""
    service = request.app[SERVICE]
    reconnects = endpoint is STREAM_RUN
    posted = request.method == "POST"
    return Call(
        service=service,
        ids=request.match_info,
        query=request.query,
        body=body,
        once=request_parsing.once_for(request, text, service.now) if posted else None,
        wait=request_parsing.preferred_wait(request.headers.getall("prefer", ())),
        streamed=reconnects or bool(given(getattr(body, "stream", None))),
        position=request_parsing.last_event(request.headers) if reconnects else None,
    )
