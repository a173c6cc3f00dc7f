"""Which models a backend has: what is listed, and the list of a chat-completions endpoint.

What may not live here: where a run goes (`routing`), and the answers of ours (`http`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import anyio
import msgspec

from openai_runs._protocol.error_mapping import error_facts
from openai_runs._transport import Reply, Transport
from openai_runs.config import MAX_MODEL_LIST_BYTES, MODEL_LIST_TIMEOUT, MODEL_LIST_TTL
from openai_runs.errors import APIError
from openai_runs.server.backends.base import ModelFailure

__all__ = [
    "NO_LIST",
    "EndpointModels",
    "ListsModels",
    "ModelInfo",
    "ServesModels",
    "read_models",
    "request_list",
]

NO_LIST: Final = frozenset({404, 405, 501})
"""Statuses of an endpoint that has no list of its models."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model, as `GET /v1/models` lists it."""

    id: str
    object: str = "model"
    created: int = 0
    """Unix seconds; 0 where nobody says."""
    owned_by: str = "openai-runs"


@runtime_checkable
class ListsModels(Protocol):
    """A backend that can say which models it has."""

    async def list_models(self) -> list[ModelInfo]:
        """Return the models, each once.

        Raises:
            ModelFailure: They cannot be known now.
        """
        ...


@runtime_checkable
class ServesModels(Protocol):
    """A backend that has some models, and no others."""

    def check_model(self, model: str) -> None:
        """Do nothing if a run of this model could be executed; called from any thread.

        Raises:
            ModelFailure: It could not.
        """
        ...


async def request_list(
    transport: Transport, url: str, headers: Mapping[str, str], timeout: float
) -> Reply:
    """Return the answer of an endpoint that is asked for the list of its models.

    Args:
        transport: What it is asked through.
        url: Of the list.
        headers: Those of its model calls, with its key.
        timeout: Seconds.

    Raises:
        APIError: There is no answer, or it is too large.

    Cancellation: closes the request.
    """
    asked = {**headers, "accept": "application/json"}
    asked.pop("content-type", None)
    return await transport.exchange(
        "GET", url, headers=asked, timeout=timeout, max_bytes=MAX_MODEL_LIST_BYTES
    )


class EndpointModels:
    """The list of a chat-completions endpoint, asked for at most once in `MODEL_LIST_TTL`."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        headers: Mapping[str, str],
        secrets: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep how to ask; `url` is that of the list."""
        self._transport = transport
        self._url = url
        self._headers = headers
        self._secrets = secrets
        self._clock = clock
        self._lock: anyio.Lock | None = None
        self._known: list[ModelInfo] | ModelFailure | None = None
        self._until = 0.0

    async def get(self) -> list[ModelInfo]:
        """Return the list; callers at the same time wait for one request.

        Raises:
            ModelFailure: The endpoint did not say.
        """
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            if self._known is None or self._clock() >= self._until:
                self._known = await self._ask()
                self._until = self._clock() + MODEL_LIST_TTL
            known = self._known
        if isinstance(known, ModelFailure):
            raise ModelFailure(known.message, code=known.code)
        return known

    async def _ask(self) -> list[ModelInfo] | ModelFailure:
        try:
            reply = await request_list(
                self._transport, self._url, self._headers, MODEL_LIST_TIMEOUT
            )
        except APIError:
            return ModelFailure("The model endpoint did not answer with a list of its models.")
        if reply.status in NO_LIST:
            return []
        if reply.status != 200:
            return self._refused(reply)
        found = read_models(reply.content)
        if found is None:
            return ModelFailure("The model endpoint sent no list of models.")
        return found

    def _refused(self, reply: Reply) -> ModelFailure:
        said = error_facts(reply.content, self._secrets).get("message", "")[:200]
        words = f": {said}" if said else ""
        return ModelFailure(
            f"The model endpoint does not list its models (HTTP {reply.status}{words})."
        )


def read_models(content: bytes) -> list[ModelInfo] | None:
    """Return the models of a list; what has no id is passed over.

    >>> read_models(b'{"data": [{"id": "a", "created": null}, {"id": 3}]}')
    [ModelInfo(id='a', object='model', created=0, owned_by='openai-runs')]
    """
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    items = body.get("data", body.get("models")) if isinstance(body, dict) else body
    if not isinstance(items, list):
        return None
    found = [info for item in items if (info := _read_model(item)) is not None]
    return list({info.id: info for info in found}.values())


def _read_model(item: Any) -> ModelInfo | None:
    if isinstance(item, str):
        item = {"id": item}
    if not isinstance(item, dict):
        return None
    name, created, owner = (item.get(key) for key in ("id", "created", "owned_by"))
    if not isinstance(name, str) or not name:
        return None
    return ModelInfo(
        id=name,
        created=int(created) if isinstance(created, int | float) and 0 <= created < 2**53 else 0,
        owned_by=owner if isinstance(owner, str) and owner else ModelInfo(id="").owned_by,
    )
