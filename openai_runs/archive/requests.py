"""Asking a server for raw objects: page by page, patiently, and with a key that may be renewed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

import anyio
import msgspec

from openai_runs import AsyncClient
from openai_runs.archive.folders import compact
from openai_runs.config import ARCHIVE_PATIENCE, KEY_PAUSE, RetryPolicy
from openai_runs.errors import (
    APIResponseValidationError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    UnprocessableEntityError,
)

__all__ = ["RawObject", "Source", "id_of", "status_of"]

T = TypeVar("T")

_LARGEST: Final = 100
"""Items of a page (OpenAPI: listMessages, `limit`)."""
_KEYS: Final = 3
"""Times that a request is sent which is refused for its key."""
_SMALLER: Final = 4
"""Part of the items that are asked for when a page is too large."""


class _Facts(msgspec.Struct):
    id: Any = ""
    status: Any = ""


class RawObject(msgspec.Struct, frozen=True):
    """An object as the server sent it, and its id."""

    id: str
    json: bytes


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    last_id: Any = None
    has_more: Any = None


_facts: Final = msgspec.json.Decoder(_Facts)


def id_of(raw: bytes) -> str:
    """Return the object's id; an empty text if it has none."""
    return _text(raw, "id")


def status_of(raw: bytes) -> str:
    """Return the object's status; an empty text if it has none."""
    return _text(raw, "status")


def _text(raw: bytes, name: str) -> str:
    try:
        value = getattr(_facts.decode(raw), name)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return value if isinstance(value, str) else ""


class Source:
    """The server that is asked."""

    def __init__(self, client: AsyncClient, retry: RetryPolicy | None) -> None:
        """Ask through this client; None: as patiently as a long job should, once it answered."""
        self._patient = client.with_options(retry=retry or RetryPolicy(patience=ARCHIVE_PATIENCE))
        self._client = client if retry is None else self._patient
        self._unknown: set[str | None] = set()
        """What this server cannot include."""

    async def get(self, path: str) -> bytes:
        """Return one object, as one line of JSON.

        Raises:
            APIError: It cannot be had.
        """
        return compact(await self._request(path, {}, msgspec.Raw))

    async def list(self, path: str, *, include: str | None = None) -> list[bytes]:
        """Return all objects of a list, oldest first; `include` asks for more of each.

        Raises:
            APIError: A page cannot be had.
        """
        if include in self._unknown:
            include = None
        try:
            return [item.json async for item in self.walk(path, include)]
        except (BadRequestError, UnprocessableEntityError):
            if include is None:
                raise
            self._unknown.add(include)  # this server does not know it
        return [item.json async for item in self.walk(path)]

    async def walk(self, path: str, include: str | None = None) -> AsyncGenerator[RawObject]:
        """Yield all objects of a list, oldest first, each once.

        An object that is deleted while its id is the cursor is passed over: the one before it is
        the cursor then.

        Raises:
            APIError: A page cannot be had.
        """
        seen: set[str] = set()
        cursors: list[str] = []
        limit = _LARGEST
        while True:
            after = cursors[-1] if cursors else None
            try:
                page, limit = await self._page(path, limit, after, include)
            except (BadRequestError, NotFoundError):
                if len(cursors) < 2:
                    raise
                cursors.pop()
                continue
            fresh = [RawObject(id_of(raw), compact(raw)) for raw in map(bytes, page.data)]
            last = fresh[-1].id or page.last_id if fresh else None
            ends = page.has_more is False or not isinstance(last, str) or not last or last in seen
            for item in fresh:
                if not item.id or item.id not in seen:
                    seen.add(item.id)
                    yield item
            if ends:
                return
            cursors = [item.id for item in fresh if item.id] or [str(last)]

    async def _page(
        self, path: str, limit: int, after: str | None, include: str | None
    ) -> tuple[_Page, int]:
        """Return a page, and how many items were asked for: fewer, where they are large."""
        while True:
            query: dict[str, Any] = {"limit": limit, "order": "asc", "after": after}
            if include is not None:
                query["include"] = [include]
            try:
                return await self._request(path, query, _Page), limit
            except APIResponseValidationError:
                if limit == 1:
                    raise
                limit = max(1, limit // _SMALLER)

    async def _request(self, path: str, query: dict[str, Any], into: type[T]) -> T:
        """Return the answer; a key that is refused is asked for again, as it may be renewed."""
        for number in range(_KEYS):
            try:
                answer = await self._client.request("GET", path, query=query, into=into)
                self._client = self._patient
                return answer
            except AuthenticationError:
                if number == _KEYS - 1:
                    raise
                await anyio.sleep(KEY_PAUSE * number)
        raise AssertionError
