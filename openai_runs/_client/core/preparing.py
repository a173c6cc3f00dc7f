"""What a call sends besides its body: its address, headers, key, and the time it has.

The headers that many calls share are put together once. Nothing is sent here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from openai_runs._client.arguments import CallOptions, check_options
from openai_runs._client.core.call import Call
from openai_runs._client.settings import Settings, merge_headers
from openai_runs._protocol.spec import RequestSpec, Retry, check_header
from openai_runs.config import check_timeout

__all__ = ["Preparer"]

_KEY: Final = "Idempotency-Key"
_STREAM: Final = "text/event-stream, application/json"


class _Heading(NamedTuple):
    """The headers that all calls of one kind share."""

    headers: dict[str, str]
    """Shared: whoever lays anything over them makes a copy."""
    key_name: str
    """How the header of the idempotency key is spelled among them."""


class Preparer:
    """Puts the calls of one client together."""

    def __init__(self) -> None:
        """Begin with no call."""
        self._headings: dict[tuple[bool, bool, bool], _Heading] = {}

    def prepare(self, settings: Settings, spec: RequestSpec[Any], options: CallOptions) -> Call:
        """Return the call; the settings are the same each time, but for the base URL.

        Raises:
            TypeError: An option is not one of `CallOptions`, or of the wrong kind.
            ValueError: An option cannot be sent, or is out of bounds.
        """
        is_guarded = spec.retry == Retry.GUARDED
        kind = (spec.stream, spec.body is not None, is_guarded)
        heading = self._headings.get(kind)
        if heading is None:
            heading = self._headings[kind] = _heading(settings, spec)
        call = Call(
            spec=spec,
            url=f"{settings.base_url or ''}{spec.path}{'?' if spec.query else ''}{spec.query}",
            headers=heading.headers,
            timeout=settings.request_timeout,
        )
        if options:
            _apply(options, call, settings)
        if is_guarded:
            call.key = settings.runtime.new_key() if call.key is None else call.key
            call.headers = {**call.headers, heading.key_name: call.key}
        extra = options.get("extra_headers")
        if extra:
            call.headers = dict(call.headers)
            checked = {name: check_header(name, value) for name, value in extra.items()}
            merge_headers(call.headers, checked)
        return call


def _heading(settings: Settings, spec: RequestSpec[Any]) -> _Heading:
    headers = settings.known_credentials()
    merge_headers(headers, settings.headers())
    if spec.stream:
        merge_headers(headers, {"Accept": _STREAM})
    if spec.body is not None:
        merge_headers(headers, {"Content-Type": "application/json"})
    if spec.retry == Retry.GUARDED:
        merge_headers(headers, {_KEY: ""})
    key_name = next((name for name in headers if name.lower() == _KEY.lower()), _KEY)
    return _Heading(headers, key_name)


def _apply(options: CallOptions, call: Call, settings: Settings) -> None:
    """Take over what a call's options say of its time and its key."""
    check_options(call.spec.operation, options)
    timeout = check_timeout("timeout", options.get("timeout"))
    if timeout is not None:
        call.deadline = settings.runtime.monotonic() + timeout
    limit = check_timeout("request_timeout", options.get("request_timeout"))
    if limit is not None:
        call.timeout = limit
    key = options.get("idempotency_key")
    if key is not None and call.guarded and not check_header(_KEY, key):
        msg = "idempotency_key must not be empty"
        raise ValueError(msg)
    call.key = key
