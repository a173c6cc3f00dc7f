"""What a base URL really implements, by harmless requests: each is a GET."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from openai_runs._client.settings import check_base_url
from openai_runs._diagnosis.finding import Finding
from openai_runs._protocol.error_mapping import error_facts
from openai_runs._protocol.masking import secrets_of
from openai_runs._transport import Reply, Transport
from openai_runs.config import ASSISTANTS_VERSION
from openai_runs.errors import APIConnectionError, OpenAIRunsError

__all__ = ["check_api"]

_TIMEOUT: Final = 10.0
"""Seconds for each request."""
_MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read."""
_ABSENT: Final = "doctor_has_no_such_id"
"""An id that no server made."""
_NONSENSE: Final = "/doctor_has_no_such_path"
"""A path that no server has: what is answered there is the answer for what is missing."""
_REQUEST: Final = re.compile(r" to GET \S+(?=:)")
"""Where an error names the request."""
_KINDS: Final[Mapping[str, str]] = {
    "assistants": "/assistants?limit=1",
    "threads": "/threads/{thread}",
    "messages": "/threads/{thread}/messages?limit=1",
    "runs": "/threads/{thread}/runs?limit=1",
    "steps": "/threads/{thread}/runs/{run}/steps?limit=1",
}
"""What a client of this API needs -> where it is."""
_EXTRAS: Final[Mapping[str, str]] = {
    "list of threads": "/threads?limit=1",
    "list of all runs": "/runs?limit=1",
    "list of models": "/models",
}
"""What some servers have besides -> where it is."""
_FEATURES: Final[Mapping[str, str]] = {
    "idempotency": "no create happens twice, whatever is lost",
    "prefer-wait": "waits poll less, as the server holds the request",
    "resume": "streams that break go on where they were",
}
"""What servers announce in `openai-runs-features` -> what it is good for."""

_WITHOUT: Final[Mapping[str, str]] = {
    "idempotency": "a create whose answer is lost is looked for by a mark in its metadata",
    "prefer-wait": "waits poll after pauses",
    "resume": "a stream that breaks is completed by polling the run",
}
"""What the client does where it is not announced."""

_STREAMS: Final = Finding(
    topic="streams",
    state="ok",
    text="not tried, as only a run shows them; without them the client polls",
)


async def check_api(
    base_url: str, api_key: str | None, key_name: str = "OPENAI_API_KEY"
) -> list[Finding]:
    """Return what the server there has, and what to do where it has not.

    Args:
        base_url: Up to `/v1`.
        api_key: Sent as a bearer token, and shown nowhere.
        key_name: The environment variable that holds it.

    Raises:
        ConfigError: It is no base URL.

    Cancellation: closes the request.
    """
    probe = _Probe(check_base_url(base_url), api_key, key_name)
    try:
        return await probe.findings()
    finally:
        await probe.transport.aclose()


class _Probe:
    """One server, asked one thing after the other."""

    def __init__(self, base_url: str, api_key: str | None, key_name: str) -> None:
        self.transport = Transport()
        self._url = base_url
        self._headers = {
            "accept": "application/json",
            "openai-beta": f"assistants={ASSISTANTS_VERSION}",
        }
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._secrets = secrets_of(self._headers)
        self._key_name = key_name if api_key else None

    async def findings(self) -> list[Finding]:
        """Return everything; the first that fails for a reason of its own ends it."""
        try:
            first = await self._get(_KINDS["assistants"])
        except OpenAIRunsError as error:
            return [_unanswered(error)]
        if first.status in {401, 403}:
            return [self._refused(first)]
        try:
            unknown = await self._get(_NONSENSE)
        except OpenAIRunsError as error:
            return [self._broken_off(first, error)]
        found = [Finding(topic="server", state="ok", text=f"{self._url} answers")]
        ids = await self._ids()
        found += await self._kinds(unknown, ids)
        found += await self._extras(unknown)
        return [*found, _STREAMS, *_features(first.headers)]

    def _broken_off(self, first: Reply, error: OpenAIRunsError) -> Finding:
        """Return what became of the second request, whose path says nothing to anybody."""
        answered = f"GET {_KINDS['assistants'].partition('?')[0]} (HTTP {first.status})"
        text = f"{self._url} answered {answered}, and failed at the next request: "
        advice = "did it stop, or does a proxy before it drop requests? Run doctor again"
        return Finding(topic="server", state="fail", text=text + _reason(error), advice=advice)

    def _refused(self, reply: Reply) -> Finding:
        """Return what the server says of the key, or of there being none."""
        said = error_facts(reply.content, self._secrets).get("message", "")
        answer = f"HTTP {reply.status}: {said}" if said else f"HTTP {reply.status}"
        if self._key_name is None:
            text = f"the server at {self._url} wants a key, and none is set: {answer}"
            advice = (
                "set OPENAI_API_KEY, or name the variable that holds the key with --api-key-env"
            )
        else:
            text = f"the server at {self._url} refused the key in {self._key_name}: {answer}"
            advice = "is it a key of this server? --api-key-env names another variable"
        return Finding(topic="key", state="fail", text=text, advice=advice)

    async def _kinds(self, unknown: Reply, ids: Mapping[str, str]) -> list[Finding]:
        missing, failing = [], []
        for kind, path in _KINDS.items():
            try:
                reply = await self._get(path.format_map(ids))
            except OpenAIRunsError as error:
                failing.append(f"{kind} ({_reason(error)})")
                continue
            if _is_missing(reply, unknown):
                missing.append(kind)
            elif reply.status >= 500:
                failing.append(f"{kind} (HTTP {reply.status})")
        there = [kind for kind in _KINDS if kind not in missing]
        if not failing and not missing:
            return [Finding(topic="api", state="ok", text=f"has {', '.join(_KINDS)}")]
        if failing:
            return [Finding(topic="api", state="fail", text=f"fails for {', '.join(failing)}")]
        is_v1 = self._url.rstrip("/").endswith("/v1")
        advice = "another server is needed" if is_v1 else "is the path /v1 missing?"
        text = f"has {', '.join(there) or 'nothing of this API'}; lacks {', '.join(missing)}"
        return [Finding(topic="api", state="fail", text=text, advice=advice)]

    async def _extras(self, unknown: Reply) -> list[Finding]:
        there, failing = [], []
        for name, path in _EXTRAS.items():
            try:
                reply = await self._get(path)
            except OpenAIRunsError as error:  # nobody needs it
                failing.append(f"{name} ({_reason(error)})")
                continue
            if reply.status == 200 and not _is_missing(reply, unknown):
                there.append(name)
        text = f"has {', '.join(there)}" if there else "none"
        if not failing:
            return [Finding(topic="besides", state="ok", text=text)]
        text += f"; fails for {', '.join(failing)}"
        advice = "a client of this API does without; run doctor again to see whether it lasts"
        return [Finding(topic="besides", state="warn", text=text, advice=advice)]

    async def _ids(self) -> dict[str, str]:
        """Return a thread and a run that are there, where the server lists them."""
        ids = {"thread": _ABSENT, "run": _ABSENT}
        try:
            run = _first(await self._get("/runs?limit=1"))
            thread = run.get("thread_id") or _first(await self._get("/threads?limit=1")).get("id")
        except OpenAIRunsError:
            return ids
        if isinstance(thread, str) and thread.isidentifier():
            ids["thread"] = thread
            if isinstance(run.get("id"), str) and run["id"].isidentifier():
                ids["run"] = run["id"]
        return ids

    async def _get(self, path: str) -> Reply:
        return await self.transport.exchange(
            "GET",
            self._url.rstrip("/") + path,
            headers=self._headers,
            timeout=_TIMEOUT,
            max_bytes=_MAX_BYTES,
        )


def _unanswered(error: OpenAIRunsError) -> Finding:
    """Return what became of the first requests; what to do next stands in the advice alone."""
    advice = getattr(error, "advice", "")
    text = str(error).removesuffix(f"; {advice}")
    where = "the address is from --base-url or OPENAI_BASE_URL"
    advice = f"{advice or 'is a server running there?'} ({where})"
    return Finding(topic="server", state="fail", text=text, advice=advice)


def _reason(error: OpenAIRunsError) -> str:
    """Return what happened, without the request: some paths are made up here."""
    if isinstance(error, APIConnectionError):
        return error.reason
    return _REQUEST.sub("", str(error))


def _first(reply: Reply) -> dict[str, Any]:
    """Return the first item of a list; an empty dict where there is none."""
    try:
        items = msgspec.json.decode(reply.content)["data"]
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError):
        return {}
    first = items[0] if isinstance(items, list) and items else {}
    return first if isinstance(first, dict) else {}


def _is_missing(reply: Reply, unknown: Reply) -> bool:
    """Return whether a path is answered as one is that does not exist.

    A path that exists may be a 404 too, for an id that does not: its words are others.
    """
    if reply.status in {405, 501}:
        return True
    if reply.status not in {404, 410} and reply.status != unknown.status:
        return False
    facts, nonsense = error_facts(reply.content), error_facts(unknown.content)
    if "unknown_url" in {facts.get("code"), facts.get("type")}:
        return True
    return reply.status == unknown.status and _shape(facts, reply) == _shape(nonsense, unknown)


def _shape(facts: Mapping[str, str], reply: Reply) -> tuple[object, ...]:
    """Return what two answers about unknown paths have in common; paths in them differ."""
    words = facts.get("message", "" if facts else reply.content[:200].decode("utf-8", "replace"))
    plain = " ".join(word for word in words.split() if "/" not in word)
    return plain, facts.get("code"), facts.get("type")


def _features(headers: Mapping[str, str]) -> list[Finding]:
    known = headers.get("openai-runs-features", "")
    announced = {one.strip() for one in known.split(",")}
    found = []
    for name, good in _FEATURES.items():
        if name in announced:
            found.append(Finding(topic=name, state="ok", text=f"yes: {good}"))
        else:
            text = "not announced; the client does without"
            found.append(Finding(topic=name, state="warn", text=text, advice=_WITHOUT[name]))
    return found
