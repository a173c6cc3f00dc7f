"""The backend in front of a `/chat/completions` endpoint, with its key and its moods."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import anyio
import msgspec

from openai_runs._protocol.faults import error_facts
from openai_runs._protocol.retry import backoff, is_retryable, is_too_long, retry_after
from openai_runs._protocol.spec import check_header
from openai_runs._transport import Reply, Transport
from openai_runs.config import MAX_ANSWER_BYTES, MODEL_TIMEOUT, RetryPolicy
from openai_runs.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ConfigError,
)
from openai_runs.server.backends.base import ModelEvent, ModelFailure, ModelRequest
from openai_runs.server.backends.chat_wire import (
    build_request,
    explain_status,
    read_answer,
)

__all__ = ["ChatBackend"]

_MASK: Final = "***"


class ChatBackend:
    """Asks a chat-completions endpoint, which may be anybody's.

    Model calls are made at least once: one whose answer was lost is made again.

    Args:
        base_url: What stands before `/chat/completions`; never taken from a request.
        api_key: Sent as a bearer token; None sends none.
        model: What to call the model there; None: as the run does.
        timeout: Seconds for one attempt.
        retry: How failed attempts are repeated: 429, 5xx and lost connections.
        max_tokens_field: Name of the token limit on that wire; `max_tokens` for older endpoints.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = MODEL_TIMEOUT,
        retry: RetryPolicy | None = None,
        max_tokens_field: str = "max_completion_tokens",
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Keep the settings; the first call opens the connections.

        Raises:
            ConfigError: `base_url` is no HTTP URL.
        """
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"base_url of the model endpoint must be an http(s) URL, got {base_url!r}"
            raise ConfigError(message)
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = api_key
        self._headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key is not None:
            self._headers["authorization"] = check_header("api_key", f"Bearer {api_key}")
        self._model = model
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._max_tokens_field = max_tokens_field
        self._max_answer_bytes = max_answer_bytes
        self._transport = Transport()

    def __repr__(self) -> str:
        """Show where the answers come from, and no key."""
        return f"ChatBackend({self._url!r})"

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Make one model call."""
        body = msgspec.json.encode(build_request(request, self._model, self._max_tokens_field))
        reply = await self._post(body)
        for event in read_answer(reply.content):
            yield event

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _post(self, body: bytes) -> Reply:
        """Return the 200, after as many attempts as the policy allows."""
        attempt = 1
        while True:
            asked: float | None = None
            try:
                reply = await self._attempt(body)
            except APITimeoutError as error:
                message = f"The model endpoint did not answer within {self._timeout:g} s."
                raise ModelFailure(message) from error
            except APIConnectionError as error:
                failure = ModelFailure("The connection to the model endpoint failed.")
                failure.__cause__ = error
                again = True
            else:
                if reply.status == 200:
                    return reply
                code = error_facts(reply.content).get("code")
                failure = self._explain(reply)
                asked = retry_after(reply.headers, time.time())
                again = is_retryable(reply.status, reply.headers, code)
            if not again or is_too_long(asked) or attempt > self._retry.max_retries:
                raise failure
            await anyio.sleep(backoff(self._retry, attempt, asked, random.random()))
            attempt += 1

    async def _attempt(self, body: bytes) -> Reply:
        try:
            return await self._transport.exchange(
                "POST",
                self._url,
                headers=self._headers,
                body=body,
                timeout=self._timeout,
                max_bytes=self._max_answer_bytes,
            )
        except APIResponseValidationError as error:
            message = "The model endpoint sent a longer answer than is read."
            raise ModelFailure(message) from error

    def _explain(self, reply: Reply) -> ModelFailure:
        failure = explain_status(reply.status, reply.content)
        if self._key and self._key in failure.message:  # an endpoint that quotes what it got
            return ModelFailure(failure.message.replace(self._key, _MASK), code=failure.code)
        return failure
