"""The backend in front of a `/chat/completions` endpoint, with its key and its moods."""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import anyio
import msgspec

from openai_runs._protocol.error_mapping import error_facts
from openai_runs._protocol.masking import secrets_of
from openai_runs._protocol.retry import backoff, is_retryable, is_too_long, retry_after
from openai_runs._protocol.spec import check_header
from openai_runs._protocol.sse import EventTooLarge, Frame, SSEParser
from openai_runs._transport import Reply, StreamReply, Transport
from openai_runs.config import MAX_ANSWER_BYTES, MODEL_END_TIMEOUT, MODEL_TIMEOUT, RetryPolicy
from openai_runs.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigError,
)
from openai_runs.server.backends.base import ModelEvent, ModelFailure, ModelRequest
from openai_runs.server.backends.chat.answers import explain_status, read_answer
from openai_runs.server.backends.chat.forms import DEFAULTS, Forms
from openai_runs.server.backends.chat.negotiation import KnownForms, Negotiation
from openai_runs.server.backends.chat.reader import ChunkReader

__all__ = ["ChatBackend"]

_TOO_LONG: Final = "The model endpoint sent a longer answer than is read."


class _Failed(Exception):  # noqa: N818 - carries what the run will show
    """An attempt that failed, and whether another one may not."""

    def __init__(
        self,
        failure: ModelFailure,
        *,
        again: bool = False,
        after: float | None = None,
        refusal: tuple[int, bytes] | None = None,
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.again = again
        self.after = after
        """Seconds the endpoint asks to be left alone."""
        self.refusal = refusal
        """Status and body, where the endpoint answered with an error."""


class ChatBackend:
    """Asks a chat-completions endpoint, which may be anybody's.

    Answers are asked for as a stream, and passed on as they come; an endpoint that answers
    with the whole is understood too. Model calls are made at least once: one whose answer
    was lost is made again, unless something of it was passed on.

    Args:
        base_url: What stands before `/chat/completions`; never taken from a request.
        api_key: Sent as a bearer token; None sends none.
        model: What to call the model there; None: as the run does.
        timeout: Seconds for one attempt; of a stream, until it begins, and then of silence.
        retry: How failed attempts are repeated: 429, 5xx and lost connections.
        max_tokens_field: Name of the token limit on that wire; `max_tokens` for older endpoints.
        forms: How the endpoint wants what there is more than one way to say, where it is known
            beforehand: `{"content": "null", "stream_options": "omit"}`. The rest is learnt.
        max_answer_bytes: Of an answer that is longer nothing is taken.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = MODEL_TIMEOUT,
        retry: RetryPolicy | None = None,
        max_tokens_field: str = DEFAULTS["max_tokens"],
        forms: Forms | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Keep the settings; the first call opens the connections.

        Raises:
            ConfigError: `base_url` is no HTTP URL, or a form does not exist.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"base_url of the model endpoint must be an http(s) URL, got {base_url!r}"
            raise ConfigError(message)
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
        }
        if api_key is not None:
            self._headers["authorization"] = check_header("api_key", f"Bearer {api_key}")
        self._secrets = secrets_of(self._headers, self._url)
        self._model = model
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._known = KnownForms(parts.hostname, {"max_tokens": max_tokens_field, **(forms or {})})
        self._max_answer_bytes = max_answer_bytes
        self._transport = Transport()

    def __repr__(self) -> str:
        """Show where the answers come from, and no key."""
        return f"ChatBackend({self._url!r})"

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Make one model call.

        Args:
            request: The run, its messages and functions.

        Raises:
            ModelFailure: The endpoint refused, failed, or could not be understood.

        Cancellation: closes the connection.
        """
        call = Negotiation(request, self._model or request.run.model, self._known)
        attempt = 1
        while True:
            spoken = False
            try:
                async with aclosing(self._attempt(msgspec.json.encode(call.build()))) as events:
                    async for event in events:
                        if not spoken:
                            call.accepted()
                        spoken = True
                        yield event
                return
            except _Failed as failed:
                if not spoken and failed.refusal is not None and call.refused(*failed.refusal):
                    continue
                failed.failure = call.explained(failed.failure)
                over = spoken or not failed.again or is_too_long(failed.after)
                if over or attempt > self._retry.max_retries:
                    raise failed.failure from failed.__cause__
                pause = backoff(self._retry, attempt, failed.after, random.random())
            await anyio.sleep(pause)
            attempt += 1

    async def aclose(self) -> None:
        """Close the connections.

        Cancellation: what could not be closed in time is abandoned.
        """
        await self._transport.aclose()

    async def _attempt(self, body: bytes) -> AsyncGenerator[ModelEvent]:
        """Ask once, and yield what is answered."""
        try:
            reply = await self._transport.exchange(
                "POST",
                self._url,
                headers=self._headers,
                body=body,
                timeout=self._timeout,
                max_bytes=self._max_answer_bytes,
                stream=True,
            )
            if isinstance(reply, StreamReply):
                try:
                    async with aclosing(self._read(reply)) as events:
                        async for event in events:
                            yield event
                finally:
                    reply.close()
                return
        except (APITimeoutError, TimeoutError) as error:
            message = f"The model endpoint did not answer within {self._timeout:g} s."
            raise _Failed(ModelFailure(message)) from error
        except APIConnectionError as error:
            message = "The connection to the model endpoint failed."
            raise _Failed(ModelFailure(message), again=True) from error
        except APIResponseValidationError as error:
            raise ModelFailure(_TOO_LONG) from error
        if reply.status != 200:
            raise self._refused(reply)
        for event in read_answer(reply.content, self._secrets):
            yield event

    async def _read(self, reply: StreamReply) -> AsyncGenerator[ModelEvent]:
        """Yield what an answer says that is read as it comes."""
        if "text/event-stream" not in reply.headers.get("content-type", "").lower():
            for event in read_answer(await self._read_whole(reply), self._secrets):
                yield event
            return
        parser, size = SSEParser(max_bytes=self._max_answer_bytes), 0
        reader, ends = ChunkReader(self._secrets), math.inf
        while not reader.done:
            if reader.is_finished and ends == math.inf:
                ends = anyio.current_time() + MODEL_END_TIMEOUT
            piece = await self._read_piece(reply, reader, ends)
            size += len(piece)
            if not piece:
                break
            if size > self._max_answer_bytes:
                raise ModelFailure(_TOO_LONG)
            for frame in self._frames(parser, piece):
                for event in reader.read(frame):
                    yield event
        for event in reader.finish():
            yield event

    async def _read_piece(self, reply: StreamReply, reader: ChunkReader, ends: float) -> bytes:
        """Return more of a stream; none once it is whole, whatever becomes of its connection.

        `ends` is when an answer that is whole is waited for no longer, whatever else comes.
        """
        try:
            with anyio.fail_after(min(self._timeout, ends - anyio.current_time())):
                return await reply.read()
        except (APIConnectionError, TimeoutError):
            if not reader.is_finished:
                raise
            return b""

    async def _read_whole(self, reply: StreamReply) -> bytes:
        content = bytearray()
        with anyio.fail_after(self._timeout):
            while piece := await reply.read():
                content += piece
                if len(content) > self._max_answer_bytes:
                    raise ModelFailure(_TOO_LONG)
        return bytes(content)

    def _frames(self, parser: SSEParser, piece: bytes) -> list[Frame]:
        try:
            return parser.feed(piece)
        except EventTooLarge as error:
            raise ModelFailure(_TOO_LONG) from error

    def _refused(self, reply: Reply) -> _Failed:
        """Return what a status other than 200 stands for."""
        facts = error_facts(reply.content)
        after = retry_after(reply.headers, time.time())
        again = is_retryable(reply.status, reply.headers, facts.get("code"))
        failure = explain_status(reply.status, reply.content, self._secrets)
        refusal = (reply.status, reply.content)
        return _Failed(failure, again=again, after=after, refusal=refusal)
