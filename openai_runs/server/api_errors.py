"""Error answers: the exact texts, written once.

The API gives its run-specific refusals no code, so clients know them by their texts: ours by the
patterns in `_protocol.error_mapping`, which change together with `active_run` and `busy_thread`.

What lives here: the exception that carries an error answer, and one function for each
text that existing clients match on, listed in docs/pages/explain/protocol.md. What may
not: deciding when to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

__all__ = [
    "OutcomeUnknown",
    "Refusal",
    "Replay",
    "StoreUnavailable",
    "active_run",
    "bad_cursor",
    "bad_expectation",
    "broken",
    "busy_thread",
    "cannot_cancel",
    "foreign",
    "invalid",
    "key_reused",
    "not_found",
    "not_http",
    "not_waiting",
    "position_lost",
    "several_keys",
    "too_large",
    "too_many_streams",
    "too_many_unsent",
    "unauthorized",
    "unexpected_outputs",
]

_INVALID: Final = "invalid_request_error"
_RETRY_AFTER: Final = 1
"""Seconds a client is asked to wait while the store cannot write, or all streams are in use."""


class Refusal(Exception):  # noqa: N818 - an answer, and a good one
    """An answer with an error status, in OpenAI's shape."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = _INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the answer holds; `kind` is its `type` on the wire."""
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.param = param
        self.code = code
        self.kind = kind
        self.headers = dict(headers or {})

    def encode(self) -> bytes:
        """Return the JSON text of the answer."""
        error = {
            "message": self.message.encode("utf-8", "replace").decode(),  # headers hold any bytes
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error})


class StoreUnavailable(Refusal):
    """503: the disk is full, the file is locked or read only; nothing was written."""

    def __init__(self, problem: str) -> None:
        """Quote the words of the database."""
        super().__init__(
            f"The server cannot use its database right now: {problem}.",
            status_code=503,
            code="store_unavailable",
            kind="server_error",
            headers={"retry-after": str(_RETRY_AFTER)},
        )


class OutcomeUnknown(Refusal):
    """500: the connection to the database broke in a commit, which may have been done."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "The server lost its database while it wrote, and does not know whether that was "
            "written: look whether it is there before you send it again.",
            status_code=500,
            code="outcome_unknown",
            kind="server_error",
            headers={"x-should-retry": "false"},
        )


class Replay(Exception):  # noqa: N818 - control flow: the request was carried out before
    """The answer that was given to this `Idempotency-Key` the first time."""

    def __init__(self, status_code: int, body: bytes) -> None:
        """Keep the stored answer."""
        super().__init__(status_code)
        self.status_code = status_code
        self.body = body


def invalid(message: str, param: str | None = None) -> Refusal:
    """400: something in the request is wrong."""
    return Refusal(message, param=param)


def not_http() -> Refusal:
    """400: what came over the connection cannot be parsed; none of it is quoted."""
    return Refusal("The request is not valid HTTP.")


def bad_expectation() -> Refusal:
    """417: an `Expect` header with another value than the one there is."""
    message = "Unknown value of the Expect header: only '100-continue' is supported."
    return Refusal(message, status_code=417)


def broken(status: int) -> Refusal:
    """A status from 500 on: no handler has answered."""
    message = "The server had an error while processing your request."
    return Refusal(message, status_code=status, kind="server_error")


def not_found(noun: str, object_id: str) -> Refusal:
    """404, such as "No run found with id 'run_1'.": not there, or on another thread."""
    return Refusal(f"No {noun} found with id '{object_id}'.", status_code=404)


def bad_cursor(param: str, noun: str, object_id: str) -> Refusal:
    """400: a list was asked to go on from an object it does not hold."""
    return Refusal(f"Invalid '{param}': no {noun} found with id '{object_id}'.", param=param)


def active_run(thread_id: str, run_id: str) -> Refusal:
    """400: one active run per thread."""
    return Refusal(f"Thread {thread_id} already has an active run {run_id}.")


def busy_thread(thread_id: str, run_id: str) -> Refusal:
    """400: no message may be added while a run is active."""
    return Refusal(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def cannot_cancel(status: str) -> Refusal:
    """400: the run is finished, or is being cancelled already."""
    return Refusal(f"Cannot cancel run with status '{status}'.")


def not_waiting(status: str) -> Refusal:
    """400: tool outputs for a run that does not wait for any."""
    return Refusal(f'Runs in status "{status}" do not accept tool outputs.')


def unexpected_outputs(expected: Iterable[str], given: Iterable[str]) -> Refusal:
    """400: outputs are missing, doubled, or belong to no call."""
    return Refusal(
        f"Expected tool outputs for call_ids [{', '.join(expected)}], got [{', '.join(given)}]",
        param="tool_outputs",
    )


def key_reused(key: str) -> Refusal:
    """409: an `Idempotency-Key` came a second time with another request."""
    return Refusal(
        f"The Idempotency-Key '{key}' was used before with another request.",
        status_code=409,
        code="idempotency_key_reused",
    )


def position_lost(run_id: str) -> Refusal:
    """409: the run's log does not hold what a stream was to go on from."""
    return Refusal(
        f"The events of run '{run_id}' are not kept from there on. Poll the run instead.",
        status_code=409,
        code="stream_position_lost",
    )


def too_many_streams(limit: int) -> Refusal:
    """503: as many streams are open as there may be."""
    return Refusal(
        f"The server has {limit} streams open, and takes no more.",
        status_code=503,
        code="too_many_streams",
        kind="server_error",
        headers={"retry-after": str(_RETRY_AFTER)},
    )


def too_many_unsent(limit: int, *, done: bool) -> Refusal:
    """503: answers that nobody has read hold as much as they may."""
    what = (
        "The request was carried out, but its answer cannot be sent now"
        if done
        else "The answer cannot be sent now, and nothing was done"
    )
    return Refusal(
        f"{what}: unread answers hold the {limit} bytes that they may.",
        status_code=503,
        code="too_many_unsent_bytes",
        kind="server_error",
        headers={"retry-after": str(_RETRY_AFTER)},
    )


def too_large(max_bytes: int) -> Refusal:
    """413: the body is longer than the server reads, as it was sent or decompressed."""
    return Refusal(
        f"The request body is too large: at most {max_bytes} bytes are read.", status_code=413
    )


def foreign(header: str, value: str) -> Refusal:
    """403: what may be a browser on a page of somebody else asks a server that has no key."""
    return Refusal(
        "This server has no API key, so it answers only what comes from this machine: "
        f"the {header} header must name localhost or a loopback address, and is "
        f"{ascii(value[:100])}. "
        "To allow other names, start the server with an API key.",
        status_code=403,
        code="foreign_host",
    )


def unauthorized(key: str) -> Refusal:
    """401: no key, or a wrong one; at most its last four characters are shown."""
    if not key:
        message = (
            "You didn't provide an API key. Send it in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        return Refusal(message, status_code=401)
    prefix = "sk-" if key.startswith("sk-") else ""
    shown = f"{prefix}...{key[-4:]}" if len(key) >= 12 else "***"
    return Refusal(f"Incorrect API key provided: {shown}.", status_code=401, code="invalid_api_key")


def several_keys() -> Refusal:
    """401: the header with the API key comes more than once."""
    message = "The request has more than one API key: send one Authorization header."
    return Refusal(message, status_code=401, code="invalid_api_key")
