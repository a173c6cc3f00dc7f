"""The backend in front of a `/chat/completions` endpoint: key, time-outs, retries."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from difflib import get_close_matches
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import msgspec

from openai_runs._log_ids import LogIds
from openai_runs._protocol.error_mapping import excerpt
from openai_runs._protocol.masking import secrets_of
from openai_runs._protocol.retry import backoff, is_too_long
from openai_runs._protocol.spec import check_header
from openai_runs._transport import StreamReply, Transport
from openai_runs.config import (
    MAX_ANSWER_BYTES,
    MODEL_DONE_TIMEOUT,
    MODEL_IDLE_TIMEOUT,
    MODEL_LIFE_MARGIN,
    MODEL_PATIENCE,
    RetryPolicy,
    check_timeout,
)
from openai_runs.errors import APIConnectionError, APITimeoutError, ConfigError
from openai_runs.server.backends.base import ModelEvent, ModelFailure, ModelRequest
from openai_runs.server.backends.chat.echoed import EchoCollector, echo_rules
from openai_runs.server.backends.chat.failures import (
    ENDPOINT,
    AttemptFailed,
    is_unknown_model,
    located,
    lost,
    refused,
    words_of,
)
from openai_runs.server.backends.chat.forms import DEFAULTS, Forms
from openai_runs.server.backends.chat.negotiation import KnownForms, Negotiation
from openai_runs.server.backends.chat.pieces import check_think
from openai_runs.server.backends.chat.reader import AnswerReader, Ending
from openai_runs.server.backends.models import EndpointModels, ModelInfo
from openai_runs.server.backends.probe import EndpointState, probe_endpoint

__all__ = ["ChatBackend", "problem_of_url"]

_logger = logging.getLogger("openai_runs.server")

_TOO_LONG: Final = f"{ENDPOINT} sent a longer answer than is read."
_SILENT: Final = f"{ENDPOINT} did not answer"
_USER: Final = re.compile(r"//[^/@]*+@")
_NO_PATH: Final = frozenset({404, 405})
_STOPPED: Final = 0.1
"""Seconds that a time-out comes late where this process was stopped, and not the model silent."""
_MAX_COMPARED: Final = 200
"""Models of a list whose names are compared with the one that is not there."""
_MAX_LISTED: Final = 5
_MAX_ERROR_BYTES: Final = 2**20
"""Bytes of an error body that are read."""
_SLICE_BYTES: Final = 2**16
"""Bytes of an answer that are read before other tasks run: endpoints may send megabytes at once."""


class ChatBackend:
    """Asks a chat-completions endpoint, which may be anybody's.

    Answers are asked for as a stream, and passed on as they come; an endpoint that answers
    with the whole is understood too. Model calls are made at least once: one whose answer
    was lost is made again, unless something of it was passed on. An endpoint that is busy, by a
    rate limit or because it loads its model, is waited for as long as the run lives.

    Args:
        base_url: What stands before `/chat/completions`; never taken from a request.
        api_key: Sent as a bearer token; None sends none.
        model: What to call the model there; None: as the run does.
        timeout: Seconds of silence at any time, in place of both time-outs below.
        first_token_timeout: Seconds until the model says the first thing; None: within the
            run's life.
        idle_timeout: Seconds of silence after that; after a finish reason 15, or this if it
            is less.
        retry: How failed attempts are repeated: 429, 5xx, lost connections, empty answers. None:
            twice, and a busy endpoint is asked again as long as the run lives.
        max_tokens_field: Name of the token limit on that wire; `max_tokens` for older endpoints.
        forms: How the endpoint wants what there is more than one way to say, where it is known
            beforehand: `{"content": "null", "stream_options": "omit"}`. The rest is learnt.
        echo: More fields of its messages that the endpoint wants back, each with the rule by
            which its pieces merge: `append`, `index`, `last`; or `never`, to leave one out.
        max_answer_bytes: Of an answer that is longer nothing is taken.
        think: What becomes of thoughts in tags within the text, such as `<think>`: `keep` them,
            `strip` them, or `separate` them: kept with the turn as `reasoning_content`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        first_token_timeout: float | None = None,
        idle_timeout: float | None = None,
        retry: RetryPolicy | None = None,
        max_tokens_field: str = DEFAULTS["max_tokens"],
        forms: Forms | None = None,
        echo: Mapping[str, str] | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        think: str = "keep",
    ) -> None:
        """Keep the settings; the first call opens the connections.

        Raises:
            ConfigError: `base_url` is no HTTP URL, or there is no such setting of `think`, `forms`
                or `echo`.
            ValueError: A time-out is not positive.
        """
        self._url = f"{_checked_url(base_url)}/chat/completions"
        self._shown = _shown(base_url.rstrip("/"))
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "accept-encoding": "identity",  # what is read as it comes is not packed
        }
        if api_key is not None:
            self._headers["authorization"] = check_header("api_key", f"Bearer {api_key}")
        self._secrets = secrets_of(self._headers, self._url)
        self._model = model
        silence = check_timeout("timeout", timeout)
        first = check_timeout("first_token_timeout", first_token_timeout) or silence
        self._first_token_timeout = first or math.inf
        idle = check_timeout("idle_timeout", idle_timeout) or silence
        self._idle_timeout = idle or MODEL_IDLE_TIMEOUT
        self._retry = retry or RetryPolicy(patience=MODEL_PATIENCE)
        self._think = check_think(think)
        self._known = KnownForms(base_url, {"max_tokens": max_tokens_field, **(forms or {})})
        self._echo = echo_rules(echo)
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
        negotiation = Negotiation(request, self._model or request.run.model, self._known)
        attempt, began = 1, anyio.current_time()
        while True:
            spoken = False
            try:
                async with aclosing(self._attempt(negotiation.encode(), request.headers)) as pieces:
                    async for events in pieces:
                        for event in events:
                            if not spoken:
                                negotiation.accepted()
                            spoken = True
                            yield event
                return
            except AttemptFailed as failed:
                refusal = None if spoken else failed.refusal
                if refusal is not None and negotiation.refused(*refusal):
                    continue
                failed.failure = negotiation.explained(failed.failure)
                pause = backoff(self._retry, attempt, failed.after, random.random())
                lasted = anyio.current_time() - began
                if spoken or not self._may_retry(failed, attempt, pause, lasted, request):
                    raise await self._explained(failed, request) from failed.__cause__
                if failed.is_busy and attempt == 1:
                    run = request.run
                    ids: LogIds = {"run_id": run.id, "thread_id": run.thread_id}
                    _logger.info("run %s waits for its model: %s", run.id, failed, extra=ids)
            await anyio.sleep(pause)
            attempt += 1

    async def _explained(self, failed: AttemptFailed, request: ModelRequest) -> ModelFailure:
        """Return the failure as the run shows it, and log it."""
        where, run = self._shown, request.run
        words = "run %s: the model endpoint %s failed: %s"
        ids: LogIds = {"run_id": run.id, "thread_id": run.thread_id}
        _logger.info(words, run.id, where, failed.cause, extra=ids)
        status, content = failed.refusal or (0, b"")
        said = words_of(content, self._secrets)
        known = ""
        if is_unknown_model(status, said):
            known = await self._listed(self._model or request.run.model)
        elif status in _NO_PATH and not urlsplit(where).path and "model" not in said.lower():
            known = f"Is the path /v1 missing, as in {where}/v1?"
        return located(failed.failure, where, known)

    async def _listed(self, wanted: str) -> str:
        """Return which models the endpoint lists, first those with names like the one asked."""
        try:
            models = await self._models.get()
        except ModelFailure:
            return ""
        names = [model.id for model in models[:_MAX_COMPARED] if model.id != wanted]
        like = get_close_matches(wanted, names, n=_MAX_LISTED, cutoff=0)
        more = len(names) - len(like)
        listed = excerpt(", ".join(like).encode(), secrets=self._secrets)
        return f"It lists {listed}{f' and {more} more' if more else ''}." if like else ""

    def _may_retry(
        self,
        failed: AttemptFailed,
        attempt: int,
        pause: float,
        lasted: float,
        request: ModelRequest,
    ) -> bool:
        """Return whether another attempt is made, after a pause that ends within the run's life."""
        expires = request.run.expires_at
        if not failed.again or (
            expires is not None and time.time() + pause > expires - MODEL_LIFE_MARGIN
        ):
            return False
        if failed.is_busy and self._retry.patience is not None:
            return lasted + pause <= self._retry.patience
        return attempt <= self._retry.max_retries and not is_too_long(failed.after)

    @cached_property
    def _models(self) -> EndpointModels:
        url = f"{self._url.removesuffix('/chat/completions')}/models"
        return EndpointModels(self._transport, url, self._headers, self._secrets)

    async def list_models(self) -> list[ModelInfo]:
        """Return the models that the endpoint lists, or the one that is asked whatever a run says.

        Raises:
            ModelFailure: The endpoint did not say.

        Cancellation: closes the request; another caller sends it again.
        """
        return await self._models.get() if self._model is None else [ModelInfo(id=self._model)]

    @property
    def endpoint_urls(self) -> list[str]:
        """Return what stands before `/chat/completions`, without a user."""
        return [_shown(self._url.removesuffix("/chat/completions"))]

    async def probe(self, timeout: float) -> list[EndpointState]:
        """Return whether the endpoint can be reached, and its models.

        Args:
            timeout: Seconds.

        Cancellation: closes the request, and nothing is found.
        """
        found = await probe_endpoint(
            self._transport,
            self._url.removesuffix("/chat/completions"),
            headers=self._headers,
            secrets=self._secrets,
            timeout=timeout,
        )
        return [msgspec.structs.replace(found, url=self.endpoint_urls[0])]

    async def aclose(self) -> None:
        """Close the connections.

        Cancellation: what could not be closed in time is abandoned.
        """
        await self._transport.aclose()

    async def _attempt(
        self, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[Iterator[ModelEvent]]:
        """Ask once, and yield for each piece of the answer what it says."""
        deadline = anyio.current_time() + self._first_token_timeout
        try:
            reply = await self._transport.exchange(
                "POST",
                self._url,
                headers={**self._headers, **headers} if headers else self._headers,
                body=body,
                timeout=self._first_token_timeout,
                stream="any",
            )
        except APIConnectionError as error:
            if isinstance(error, APITimeoutError) and error.sent:
                said = self._silence()
                raise AttemptFailed(ModelFailure(said), again=True, cause=said) from error
            raise lost(error) from error
        assert isinstance(reply, StreamReply)
        try:
            if not 200 <= reply.status < 300:
                raise await self._refused(reply)
            async with aclosing(self._read(reply, deadline)) as pieces:
                async for events in pieces:
                    yield events
        finally:
            reply.close()

    async def _read(
        self, reply: StreamReply, deadline: float
    ) -> AsyncGenerator[Iterator[ModelEvent]]:
        """Yield what each piece of an answer says; `deadline` is that of its first token."""
        reader, size = (
            AnswerReader(self._secrets, think=self._think, echo=EchoCollector(self._echo)),
            0,
        )
        ending = Ending.CLEAN, "", ""
        while not reader.is_done:
            try:
                piece = await _next_piece(reply, deadline)
            except TimeoutError:
                said = self._silence(reader)
                ending = Ending.SILENT, said, said
                break
            except APIConnectionError as error:
                failed = lost(error)
                ending = Ending.LOST, failed.failure.message, failed.cause
                break
            size += len(piece)
            if not piece:
                break
            if size > self._max_answer_bytes:
                raise AttemptFailed(ModelFailure(_TOO_LONG), cause=_TOO_LONG)
            before = reader.progress
            for begin in range(0, len(piece), _SLICE_BYTES):
                if begin:
                    await anyio.lowlevel.checkpoint()
                yield reader.feed(piece[begin : begin + _SLICE_BYTES])
            deadline = self._next_deadline(reader, deadline, is_progress=reader.progress > before)
        yield reader.finish(*ending)

    def _next_deadline(self, reader: AnswerReader, deadline: float, *, is_progress: bool) -> float:
        """Return until when more is waited for.

        Before the first token, its own time-out counts. After a finish reason only what says
        something counts as a sign of life, else anything does.
        """
        now = anyio.current_time()
        if reader.has_reason:
            limit = now + min(self._idle_timeout, MODEL_DONE_TIMEOUT)
            return limit if is_progress else min(deadline, limit)
        return now + self._idle_timeout if reader.is_within else deadline

    def _silence(self, reader: AnswerReader | None = None) -> str:
        if reader is not None and reader.is_within:
            return f"{_SILENT} within {self._idle_timeout:g} s, after it had begun."
        return f"{_SILENT} within {self._first_token_timeout:g} s."

    async def _refused(self, reply: StreamReply) -> AttemptFailed:
        """Return what a status other than 200 stands for."""
        content = await self._read_error(reply)
        return refused(reply.status, content, reply.headers, now=time.time(), secrets=self._secrets)

    async def _read_error(self, reply: StreamReply) -> bytes:
        """Return an error body as far as it comes."""
        content = bytearray()
        try:
            with anyio.move_on_after(self._idle_timeout):
                while len(content) < _MAX_ERROR_BYTES and (piece := await reply.read()):
                    content += piece
        except APIConnectionError:
            pass  # the status says enough
        return bytes(content)


async def _next_piece(reply: StreamReply, deadline: float) -> bytes:
    """Return the next bytes of an answer; none at its end.

    Raises:
        TimeoutError: None came in time, though this process was not stopped meanwhile.
    """
    while True:
        try:
            with anyio.fail_after(deadline - anyio.current_time()):
                return await reply.read()
        except TimeoutError:
            late = anyio.current_time() - deadline
            if late < _STOPPED:
                raise
            deadline += 2 * late


def _checked_url(base_url: str) -> str:
    """Return the URL without slashes at its end.

    Raises:
        ConfigError: It is no HTTP URL.
    """
    problem = problem_of_url(base_url)
    if problem:
        message = f"base_url of the model endpoint {problem}, got {_shown(base_url)!r}"
        raise ConfigError(message)
    return base_url.rstrip("/")


def problem_of_url(url: str) -> str:
    """Return why a URL is none that `/chat/completions` can be put behind; empty: it is one.

    Args:
        url: What an operator wrote.
    """
    if any(one.isspace() or not one.isprintable() for one in url):
        return "must hold no blanks"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http(s) URL"
    try:
        parts.port  # noqa: B018 - raises
    except ValueError:
        return "has a port that is no number from 0 to 65535"
    if parts.query or parts.fragment:
        return "must have no query and no fragment"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "must end before /chat/completions"
    return ""


def _shown(url: str) -> str:
    """Return a URL without what may be a secret.

    >>> _shown("https://me:word@models.example/v1?key=1")
    'https://***@models.example/v1'
    """
    return _USER.sub("//***@", url.partition("?")[0].partition("#")[0])
