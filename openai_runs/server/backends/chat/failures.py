"""What an error of an endpoint means for the model call: its code, its words, and a retry. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from openai_runs._protocol.error_mapping import error_facts, excerpt, value_facts
from openai_runs._protocol.retry import is_retryable, retry_after
from openai_runs.server.backends.base import ModelFailure
from openai_runs.server.backends.chat.words import is_loading, is_rate_limit

__all__ = ["EXCERPT_CHARS", "AttemptFailed", "error_inside", "refused", "words_of"]

EXCERPT_CHARS: Final = 200
"""Characters of an endpoint's words that are shown."""
_MAX_PAGE_BYTES: Final = 4096
_NO_TEXT: Final = frozenset({"script", "style"})
"""Elements of a page that hold nothing for people."""
_UNAVAILABLE: Final = frozenset({503, 529})
"""What an endpoint answers that will answer later."""
_SILENT: Final = "it does not say why"


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
    is_limit = status == 429 or _is_limit(facts, said if status >= 500 else "")
    is_open = status >= 500 or status in {408, 409, 425, 429}
    is_busy = is_limit or status in _UNAVAILABLE or (is_open and is_loading(said))
    again = is_retryable(429 if is_busy else status, headers, facts.get("code"))
    if status in {401, 403} and not is_limit:
        failure = ModelFailure(f"The model endpoint refused the server's key (HTTP {status}).")
    else:
        sentence = f"The model endpoint answered HTTP {status}{f': {said}' if said else '.'}"
        failure = ModelFailure(sentence, code=_code(status, is_limit))
    refusal = (status, content)
    return AttemptFailed(
        failure, again=again, is_busy=is_busy and again, after=after, refusal=refusal
    )


def error_inside(value: Any, secrets: Collection[str] = (), *, in_stream: bool) -> AttemptFailed:
    """Return what an error within a 200 means: a JSON value in place of an answer or a chunk."""
    facts = value_facts(value, secrets)
    said = facts.get("message", "")[:EXCERPT_CHARS]
    named = " ".join(filter(None, (facts.get("type"), facts.get("code"))))
    status = _status(value, facts)
    is_limit = status == 429 or _is_limit(facts, said)
    is_busy = is_limit or is_loading(said) or "overload" in named
    again = (is_busy or status >= 500) and is_retryable(
        429 if is_busy else status, {}, facts.get("code")
    )
    where = "failed in mid-answer" if in_stream else "answered with an error"
    sentence = f"The model endpoint {where}: {said or named or _SILENT}"
    failure = ModelFailure(sentence, code=_code(status, is_limit))
    refusal = (status or 400, json.dumps(value).encode())
    return AttemptFailed(failure, again=again, is_busy=is_busy and again, refusal=refusal)


def words_of(content: bytes, secrets: Collection[str] = ()) -> str:
    """Return what a body says for people: an error's message, a page's title, or its beginning.

    >>> words_of(b"<html><title>502 Bad Gateway</title>")
    '502 Bad Gateway'
    """
    facts = error_facts(content, secrets)
    if facts.get("message"):
        return facts["message"][:EXCERPT_CHARS]
    if content.lstrip()[:1] in (b"{", b"["):
        return ""
    text = excerpt(content[:_MAX_PAGE_BYTES], _MAX_PAGE_BYTES, secrets=secrets)
    if text.startswith("<"):
        text = _page_text(text)
    return " ".join(text.split())[:EXCERPT_CHARS]


def _page_text(page: str) -> str:
    """Return the title of a page, or all of its text where it has none.

    >>> _page_text("<style>p {}</style><p class='a'>Bad <b>gateway</b>"
    'Bad  gateway '
    """
    texts = []
    within = ""
    for piece in page.split("<"):
        tag, closed, text = piece.partition(">")
        name = tag.partition(" ")[0].lower()
        if name == "title" and text.strip():
            return text
        if name in _NO_TEXT:
            within = name
        elif name == f"/{within}":
            within = ""
        if closed and not within:
            texts.append(text)
    return " ".join(texts)


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
        named += [str(error.get(name)) for name in ("status", "status_code", "code")]
    found = (one for one in named if one is not None and len(one) == 3 and one.isascii())
    return next((int(one) for one in found if one.isdigit() and one[0] in "45"), 0)


def _code(status: int, is_limit: bool) -> str:
    if is_limit:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status in {400, 413, 422} else "server_error"
