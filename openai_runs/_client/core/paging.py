"""Lists: `await` for one page, `async for` over all items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from openai_runs._client.arguments import CallOptions, ListCall, parse
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.usage import AsyncOnly
from openai_runs._protocol.endpoints import Endpoint
from openai_runs._protocol.spec import QueryValue, check_id
from openai_runs.types.base import Page

__all__ = ["AsyncPaginator", "paginate"]

T = TypeVar("T")

_OF_A_PAGE: Final = frozenset({"data", "has_more", "first_id", "last_id", "next_page", "to_dict"})


class AsyncPaginator(AsyncOnly, Generic[T]):
    """A list call: `await` it for the first `Page`, or `async for` over all items.

    Each page is a request of its own, and `timeout` bounds each. The iteration ends when
    the server has no more, after `max_items`, or when the server's cursor stops moving.
    With `before=X` it walks the list backwards from X.

    Raises:
        BadRequestError: The server does not know the cursor.
        APIError: A page could not be fetched.

    Cancellation: closes the request in progress; nothing is left open.
    """

    _block = "is no context manager: use `async for`, or `await` it for one page"
    _instead = "; `await` it for one page"

    def __init__(
        self,
        pipeline: Pipeline,
        endpoint: Endpoint[Page[T]],
        ids: Mapping[str, str],
        query: Mapping[str, QueryValue],
        options: CallOptions,
        *,
        call: str,
        max_items: int | None = None,
    ) -> None:
        """Check the arguments; nothing is sent yet."""
        self._call = f"client.{call}(...)"
        _check(query, max_items)
        self._pipeline = pipeline
        self._endpoint = endpoint
        self._ids = ids
        self._query = dict(query)
        self._options = options
        self._max_items = max_items
        self._backwards = query.get("before") is not None and query.get("after") is None
        # Bad ids fail here, unsent.
        self._first = pipeline.build_request(endpoint, ids, options, query=self._query)

    def __await__(self) -> Generator[Any, None, Page[T]]:
        """Return the first page."""
        return self._page(self._query).__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield every item, page after page."""
        left = self._max_items
        if left == 0:
            return
        async for page in self.pages():
            items: Iterable[T] = reversed(page.data) if self._backwards else page.data
            for item in items:
                yield item
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    def __repr__(self) -> str:
        return f"<{self._call}: not sent; use `async for`, or `await` it for one page>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{self._call} has no attribute {name!r}"
            if name in _OF_A_PAGE:
                message += f"; was an await forgotten? page = await {self._call}"
            raise AttributeError(message)

        async def __aenter__(self) -> NoReturn:
            return self.__enter__()

        async def __aexit__(self, *_: object) -> None:
            """Be there, since Python asks for it before it enters."""

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Yield every page."""
        query = self._query
        seen = {query.get("after"), query.get("before")}
        while True:
            page = await self._page(query)
            cursor = self._cursor(page)
            if not page.data or (cursor is not None and cursor in seen):
                return  # the end, or a server that repeats a page
            yield page
            if cursor is None or not _goes_on(page):
                return
            seen.add(cursor)
            query = self._moved(query, cursor)

    def _cursor(self, page: Page[T]) -> str | None:
        if not page.data:
            return None
        edge, named = (
            (page.data[0], page.first_id) if self._backwards else (page.data[-1], page.last_id)
        )
        own = getattr(edge, "id", None)
        return own if isinstance(own, str) and own else named or None

    def _moved(self, query: Mapping[str, QueryValue], cursor: str) -> dict[str, QueryValue]:
        return {**query, ("before" if self._backwards else "after"): cursor}

    async def _page(
        self, query: Mapping[str, QueryValue], seen: frozenset[QueryValue] = frozenset()
    ) -> Page[T]:
        spec = self._first
        if query is not self._query:
            spec = self._pipeline.build_request(
                self._endpoint, self._ids, self._options, query=query
            )
        page = await self._pipeline.send(spec, self._options)
        before = seen | {query.get("after"), query.get("before")}

        async def follow(
            page: Page[T],
        ) -> Page[T] | None:  # not a method: the page refers to it, without a cycle
            cursor = self._cursor(page)
            if cursor is None or not _goes_on(page):
                return None
            if cursor in before:
                return None  # the server repeats a cursor
            return await self._page(self._moved(query, cursor), before)

        page.__dict__["_follow"] = follow
        return page


def paginate(
    pipeline: Pipeline,
    endpoint: Endpoint[Page[T]],
    ids: Mapping[str, str],
    call: str,
    arguments: ListCall,
    *,
    extra: Mapping[str, QueryValue] | None = None,
) -> AsyncPaginator[T]:
    """Return the list call for these arguments; `extra` are query parameters of this list only.

    Raises:
        TypeError: An argument is unknown or of the wrong kind.
        ValueError: An argument is out of bounds.
    """
    given = parse(call, ListCall, arguments)
    query: dict[str, Any] = {**given.page, **(extra or {})}
    max_items = query.pop("max_items", None)
    return AsyncPaginator(
        pipeline, endpoint, ids, query, given.call, call=call, max_items=max_items
    )


def _goes_on(page: Page[Any]) -> bool:
    """Return whether another page may follow; a server that does not say is asked for one."""
    return page.has_more or (page.http is not None and b'"has_more"' not in page.http.content)


def _check(query: Mapping[str, QueryValue], max_items: int | None) -> None:
    limit, order = query.get("limit"), query.get("order")
    for name, value, least in (("limit", limit, 1), ("max_items", max_items, 0)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            msg = f"{name} must be an integer, got {value!r}"
            raise TypeError(msg)
        if value < least:
            msg = f"{name} must be at least {least}, got {value!r}"
            raise ValueError(msg)
    for name in ("after", "before", "run_id"):
        if query.get(name) is not None:
            check_id(name, query[name])
    if order not in {None, "asc", "desc"}:
        msg = f"order must be 'asc' or 'desc', got {order!r}"
        raise ValueError(msg)
