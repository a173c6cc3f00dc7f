"""One attempt of a request within a span, whose trace goes out with it."""

from __future__ import annotations

from openai_runs._client.core.call import Call
from openai_runs._protocol.spec import merge_headers
from openai_runs._tracing import ClientTracing
from openai_runs._transport import Reply, StreamReply, Transport

__all__ = ["traced_exchange"]


async def traced_exchange(
    transport: Transport, tracing: ClientTracing, call: Call, headers: dict[str, str]
) -> Reply | StreamReply:
    """Return the next attempt within a span, whose trace goes out with it."""
    spec = call.spec
    span = tracing.start_request(
        spec.operation,
        spec.method,
        call.shown_url,
        spec.thread_id,
        spec.run_id,
        call.attempts,
    )
    # A header of the caller's own wins.
    sent = span.headers()
    merge_headers(sent, headers)
    reply: Reply | StreamReply | None = None
    try:
        reply = await transport.exchange(
            spec.method,
            call.url,
            headers=sent,
            body=spec.body,
            timeout=call.timeout,
            stream=spec.stream,
        )
        span.set_http_status(reply.status)
    except BaseException as error:
        span.fail(error)
        raise
    finally:
        if isinstance(reply, StreamReply) and reply.status < 300:
            reply.span = span  # which ends with the stream
        else:
            span.end()
    return reply
