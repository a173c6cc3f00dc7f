"""What an error of an endpoint means for the model call: its code, its words, and a retry. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from openai_runs._protocol.advice.pages import page_text
from openai_runs._protocol.error_mapping import (
    error_facts,
    excerpt,
    masked_json,
    value_facts,
)
from openai_runs._protocol.masking import mask_value
from openai_runs._protocol.retry import is_retryable, retry_after
from openai_runs.errors import APIConnectionError
from openai_runs.server.backends.base import ModelFailure
from openai_runs.server.backends.chat.words import is_loading, is_passing, is_rate_limit

__all__ = [
    "ENDPOINT",
    "EXCERPT_CHARS",
    "AttemptFailed",
    "error_inside",
    "error_of",
    "is_unknown_model",
    "located",
    "lost",
    "refused",
    "words_of",
    "written",
]

ENDPOINT: Final = "The model endpoint"
"""How each sentence about it begins."""
EXCERPT_CHARS: Final = 200
"""Characters of an endpoint's words that are shown."""
_MAX_PAGE_BYTES: Final = 4096
_FINAL: Final = frozenset({401, 402, 413, 422})
"""What no endpoint answers that will answer later, whatever it says."""
_QUOTED: Final = re.compile(r"'[^']*+'|\"[^\"]*+\"")
"""What an error repeats of the request."""
_SHORT: Final = 40
"""Characters of a message that says too little to be alone."""
_TELLING: Final = frozenset(
    {"message", "msg", "raw", "detail", "description", "reason", "error", "title"}
)
"""Names of what an error says in other places than the usual ones."""
_MAX_PLACES: Final = 100
_UNAVAILABLE: Final = frozenset({503, 529})
"""What an endpoint answers that will answer later."""
_REDIRECT: Final = "a redirect, which is never followed; its URL must be the one that answers."
_SILENT: Final = "it does not say why"
_NO_HTTP: Final = "no proper HTTP"
_SET_KEY: Final = "name one with --model-key-env, or ChatBackend(api_key=)."
_UNKNOWN_MODEL: Final = frozenset({400, 404, 422})
_NO_MODEL: Final = re.compile(
    r"\bmodels?\b[^.]{0,200}(?:not (?:found|exist|supported|available)|n't exist|unknown|invalid)"
    r"|(?:no such|unknown|invalid|unsupported) model",
    re.I,
)
"""How endpoints say that they do not have a model."""
_CODES: Final = (
    "status_code",
    "statusCode",
    "error_code",
    "errorCode",
    "err_code",
    "errcode",
    "errCode",
    "code",
)
_ERROR_WORDS: Final = (
    "error_msg", "error_message", "errorMsg", "errorMessage", "err_msg", "errmsg", "errMsg",
)  # fmt: skip
"""Names of the words of an error, whatever else is said."""
_ANY_WORDS: Final = ("status_msg", "message", "msg", "detail", "reason", "title")
"""Names of words that are those of an error where nothing is said for the answer."""
_ERROR_NAMES: Final = frozenset({"base_resp", "status_code", *_ERROR_WORDS})
"""A value with none of these has no error under a name of its own."""
_FINE: Final = frozenset({"", "ok", "success", "succeeded", "successful"})
_FAILED: Final = frozenset({"error", "fail", "failed", "failure"})


class AttemptFailed(Exception):  # noqa: N818 - carries what the run will show
    """One attempt of a model call failed."""

    def __init__(
        self,
        failure: ModelFailure,
        *,
        again: bool = False,
        is_busy: bool = False,
        after: float | None = None,
        refusal: tuple[int, bytes] | None = None,
        cause: str = "",
    ) -> None:
        """Keep them."""
        super().__init__(failure.message)
        self.failure = failure
        self.again = again
        """Whether another attempt may succeed."""
        self.is_busy = is_busy
        """Whether the endpoint says that it has no time yet: a rate limit, a model that loads."""
        self.after = after
        """Seconds the endpoint asks to wait."""
        self.refusal = refusal
        """Status and body of its error; another request may be taken."""
        self.cause = cause or failure.code
        """What is logged of it: nothing that came from the endpoint, which may quote a prompt."""


def refused(
    status: int,
    content: bytes,
    headers: Mapping[str, str],
    *,
    now: float,
    secrets: Collection[str] = (),
) -> AttemptFailed:
    """Return what an error status means, without the secrets that it quotes.

    Args:
        status: The HTTP status.
        content: The body, of any kind.
        headers: By case-insensitive name.
        now: Unix seconds.
        secrets: What is masked.
    """
    facts = error_facts(content, secrets)
    said = words_of(content, secrets)
    after = retry_after(headers, now)
    is_limit = status == 429 or _is_limit(facts, _QUOTED.sub("", said))
    is_open = status not in _FINAL
    is_busy = is_limit or status in _UNAVAILABLE or (is_open and is_loading(said))
    again = is_retryable(429 if is_busy else status, headers, facts.get("code"))
    is_of_key = status == 401 or (status == 403 and (not said or "key" in said.lower()))
    if is_of_key and not is_limit:
        refused_key = f"refused the server's key (HTTP {status})."
        no_key = f"wants a key, and the server has none (HTTP {status}): {_SET_KEY}"
        failure = ModelFailure(f"{ENDPOINT} {refused_key if secrets else no_key}")
    else:
        said = _REDIRECT if 300 <= status < 400 else said
        sentence = f"{ENDPOINT} answered HTTP {status}{f': {said}' if said else '.'}"
        failure = ModelFailure(sentence, code=_code(503 if is_busy else status, is_limit))
    refusal = (status, content)
    return AttemptFailed(
        failure,
        again=again,
        is_busy=is_busy and again,
        after=after,
        refusal=refusal,
        cause=f"HTTP {status}",
    )


def lost(error: APIConnectionError) -> AttemptFailed:
    """Return what a failed connection means: what happened, and what to look at."""
    if not error.retryable:
        hint = "are its URL and SSL_CERT_FILE right?"
    elif not error.sent:
        hint = "is it running?"
    else:
        hint = error.advice or "its log may say why"
    failure = ModelFailure(f"{ENDPOINT} failed: {error.reason}; {hint}")
    is_quoted = error.reason.startswith(_NO_HTTP)
    return AttemptFailed(
        failure, again=True, cause=f"{_NO_HTTP if is_quoted else error.reason}; {hint}"
    )


def located(failure: ModelFailure, url: str, known: str = "") -> ModelFailure:
    """Return the failure with the endpoint's URL in its sentence, and what is known of its models.

    Args:
        failure: What went wrong.
        url: Without credentials and query.
        known: A sentence, or nothing.

    >>> located(ModelFailure("The model endpoint answered HTTP 500."), "http://h/v1").message
    'The model endpoint http://h/v1 answered HTTP 500.'
    """
    message = failure.message
    if message.startswith(ENDPOINT):
        message = f"{ENDPOINT} {url}{message.removeprefix(ENDPOINT)}"
    if known:
        message = f"{message.rstrip('.')}. {known}"
    return ModelFailure(message, code=failure.code)


def is_unknown_model(status: int, words: str) -> bool:
    """Return whether an endpoint says that it does not have the model.

    >>> is_unknown_model(404, "model 'phi9' not found"), is_unknown_model(404, "Not Found")
    (True, False)
    """
    return status in _UNKNOWN_MODEL and _NO_MODEL.search(words) is not None


def error_inside(value: Any, secrets: Collection[str] = (), *, in_stream: bool) -> AttemptFailed:
    """Return what an error within a 200 means: a JSON value in place of an answer or a chunk."""
    facts = value_facts(value, secrets)
    said = _with_hidden_words(facts, mask_value(value, secrets))[:EXCERPT_CHARS]
    named = " ".join(filter(None, (facts.get("type"), facts.get("code"))))
    status = _status(value, facts)
    is_limit = status == 429 or _is_limit(facts, said)
    is_busy = is_limit or is_loading(said) or "overload" in named
    may_pass = status >= 500 or (not status and is_passing(f"{named} {said}"))
    again = (is_busy or may_pass) and is_retryable(
        429 if is_busy else status or 500, {}, facts.get("code")
    )
    where = "failed in mid-answer" if in_stream else "answered with an error"
    sentence = f"{ENDPOINT} {where}: {said or named or _SILENT}"
    failure = ModelFailure(sentence, code=_code(status, is_limit))
    refusal = (status or 400, json.dumps(value).encode())
    return AttemptFailed(failure, again=again, is_busy=is_busy and again, refusal=refusal)


def error_of(value: Any) -> Any:
    """Return the error in the place of an answer or a chunk, or None.

    >>> error_of({"choices": None, "status": "439", "msg": "expired"})
    {'error': {'message': 'expired', 'code': '439', 'type': None}}
    >>> error_of({"choices": [], "usage": {}})
    """
    if isinstance(value, str | bytes):
        return value
    if not isinstance(value, dict):
        return None
    foreign = _foreign_error(value)
    error = value.get("error") or value.get("errors")
    if isinstance(error, dict):  # some send one without words or a code where there is none
        error = any(error.values())
    if error or foreign is not None:
        return foreign or value
    if "error" in (value.get("object"), value.get("type")):
        return value
    return None if value.get("choices") else _error_alone(value)


def _foreign_error(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return an error under the names of some endpoints as one under the usual names."""
    if _ERROR_NAMES.isdisjoint(value):
        return None
    base = value.get("base_resp")
    fields = base if isinstance(base, dict) else value
    code = _named_code(fields)
    names = [*_ERROR_WORDS, *(["status_msg"] if fields.get("status_code") else [])]
    words = _first_words(fields, names)
    is_fine = code is None and any(_is_fine(fields.get(name)) for name in _CODES)
    return None if not words or is_fine else _error(words, code, fields)


def _error_alone(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error that a value is which says nothing for the answer."""
    code, status, kind = _named_code(value), value.get("status"), value.get("type")
    words = _first_words(value, _ANY_WORDS)
    is_failed = value.get("success") is False or bool(value.get("error_type"))
    is_failed = is_failed or (isinstance(kind, str) and "error" in kind.lower())
    if _is_failed_status(status):
        is_failed, code = True, status if code is None else code
    if is_failed or (code is not None and (words or "choices" not in value)):
        return _error(words or written(value).decode(), code, value)
    if any(_is_fine(value.get(name)) for name in _CODES):
        return None
    is_told = bool(words) and isinstance(value.get("message"), str)
    return value if is_told or ("detail" in value and "choices" not in value) else None


def _named_code(fields: dict[str, Any]) -> Any:
    """Return the code of an error; a code that says success is none."""
    for name in _CODES:
        code = fields.get(name)
        if code is not None and code != "" and not isinstance(code, dict | list | bool):
            return None if _is_fine(code) else code
    return None


def _is_fine(code: Any) -> bool:
    """Tell a code of success: a word for it, zeros, or an HTTP status of success."""
    if isinstance(code, bool) or not isinstance(code, int | str) or code == "":
        return False
    text = str(code).lower()
    return text in _FINE or not text.strip("0") or (len(text) == 3 and text[0] == "2")


def _is_failed_status(status: Any) -> bool:
    if isinstance(status, bool) or not isinstance(status, int | str):
        return False
    text = str(status).lower()
    return text in _FAILED or (len(text) == 3 and text.isdecimal() and text[0] in "45")


def _first_words(fields: dict[str, Any], names: Any) -> str:
    """Return what the first of these fields says that says something."""
    for name in names:
        said = fields.get(name)
        said = said.get("text") or said.get("message") if isinstance(said, dict) else said
        if isinstance(said, str) and said.strip().lower().strip(".!") not in _FINE:
            return said
    return ""


def _error(words: str, code: Any, fields: dict[str, Any]) -> dict[str, Any]:
    kind = fields.get("error_type") or fields.get("type")
    return {"error": {"message": words, "code": code, "type": kind}}


def written(value: Any) -> bytes:
    """Return a JSON value as the endpoint may have written it, for an error."""
    return str(value)[: EXCERPT_CHARS * 2].encode("utf-8", "replace")


def words_of(content: bytes, secrets: Collection[str] = ()) -> str:
    """Return what a body says for people: an error's message, a page's title, or its beginning.

    >>> words_of(b"<html><title>502 Bad Gateway</title>")
    '502 Bad Gateway'
    """
    said = _with_hidden_words(error_facts(content, secrets), masked_json(content, secrets))
    if said or content.lstrip()[:1] in (b"{", b"["):
        return said[:EXCERPT_CHARS]
    text = excerpt(content[:_MAX_PAGE_BYTES], _MAX_PAGE_BYTES, secrets=secrets)
    if text.startswith("<"):
        text = page_text(text)
    return " ".join(text.split())[:EXCERPT_CHARS]


def _with_hidden_words(facts: Mapping[str, str], value: Any) -> str:
    """Return an error's message, and where that says little what else there is in its body.

    >>> value = {"error": {"message": "Provider error", "metadata": {"raw": "no memory"}}}
    >>> _with_hidden_words({"message": "Provider error"}, value)
    'Provider error; no memory'
    """
    said = facts.get("message", "")
    if len(said) >= _SHORT:
        return said
    for words in islice(_telling(value), _MAX_PLACES):
        inner = value_facts(words).get("message", "")
        if inner not in said and len(said) < EXCERPT_CHARS:
            said = f"{said}; {inner}" if said else inner
    return said


def _telling(value: Any) -> Iterator[str]:
    """Yield the texts within an error that people read, the outer ones first."""
    places, read = [value], 0
    while places and read < _MAX_PLACES:
        place, read = places.pop(0), read + 1
        if isinstance(place, dict):
            yield from (v for k, v in place.items() if k in _TELLING and isinstance(v, str))
            places += [each for each in place.values() if isinstance(each, dict | list)]
        elif isinstance(place, list):
            places += [each for each in place[:_MAX_PLACES] if isinstance(each, dict | list)]


def _is_limit(facts: Mapping[str, str], said: str) -> bool:
    """Tell a rate limit by its code or type, or by its words where these are the endpoint's."""
    named = f"{facts.get('code', '')} {facts.get('type', '')}"
    return is_rate_limit(named) or is_rate_limit(said)


def _status(value: Any, facts: Mapping[str, str]) -> int:
    """Return the HTTP status that an error within a 200 names; 0: none."""
    error = value[0] if isinstance(value, list) and value else value
    error = error.get("error", error) if isinstance(error, dict) else error
    named = [facts.get("code")]
    if isinstance(error, dict):
        named += [str(error.get(name)) for name in ("status", "status_code", "statusCode", "code")]
    found = (one for one in named if one is not None and len(one) == 3 and one.isascii())
    return next((int(one) for one in found if one.isdigit() and one[0] in "45"), 0)


def _code(status: int, is_limit: bool) -> str:
    if is_limit:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status in {400, 413, 422} else "server_error"
