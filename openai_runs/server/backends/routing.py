"""Several models behind one server: which run goes to which endpoint, and under which name.

What may not live here: the file that says so (`routing_file`), and the wire of an endpoint. URLs
come from whoever starts the server, never from a request: a request chooses a name.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Final

import anyio
import msgspec

from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Backend, ModelEvent, ModelFailure, ModelRequest
from openai_runs.server.backends.models import ListsModels, ModelInfo
from openai_runs.server.backends.probe import EndpointState, ProbesEndpoints, probe_endpoints

__all__ = ["Route", "RoutingBackend"]

_ANY: Final = "*"
"""In a pattern: any characters, or none."""
_SHOWN_NAMES: Final = 20
"""Names that an error lists."""
_SHOWN_CHARS: Final = 100
"""Characters of a name that an error shows; a request may hold any."""

_logger = logging.getLogger("openai_runs.server")


class Route(msgspec.Struct, frozen=True):
    """Where the runs of a model go."""

    endpoint: str
    """Its name among the endpoints."""
    model: str | None = None
    """What the model is called there; None: as the run calls it."""


class RoutingBackend:
    """Hands each run to the endpoint of its model.

    A name is looked up as it is, then among the patterns in their order. What is found is a
    `Route`, or another name, which is looked up among the routes once more. A name that nothing
    fits goes where there is only one endpoint to that, as it is; else its run is refused when it
    is created, since whoever sent it can read why.

    Args:
        endpoints: Backends by a name of your choice.
        models: Names of models, or patterns with `*`, and where each goes: a `Route`, or the name
            of another model.
    """

    def __init__(
        self, endpoints: Mapping[str, Backend], models: Mapping[str, str | Route] | None = None
    ) -> None:
        """Keep the endpoints, and resolve the names.

        Raises:
            ConfigError: There is no endpoint, or a name leads to none.
        """
        if not endpoints:
            message = "a RoutingBackend needs an endpoint"
            raise ConfigError(message)
        self._endpoints = dict(endpoints)
        self._only = Route(next(iter(endpoints))) if len(endpoints) == 1 else None
        self._logged: dict[str, str] = {}
        """The last line that was written of an endpoint which does not list its models."""
        rows = dict(models or {})
        self._renamed = [row for row in rows.values() if isinstance(row, str)]
        self._routes = {name: row for name, row in rows.items() if isinstance(row, Route)}
        for name, row in self._routes.items():
            self._check(name, row)
        # In the order of the caller, which is that of the patterns.
        self._routes = {name: self._resolve(name, _followed(name, rows)) for name in rows}
        if not self._routes and self._only is None:
            message = "there are several endpoints, and nothing says which models go where"
            raise ConfigError(message)

    def __repr__(self) -> str:
        """Show the names of the endpoints."""
        return f"RoutingBackend({list(self._endpoints)})"

    def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Make one model call, of the endpoint that the run's model goes to.

        Args:
            request: The run, its messages and functions.

        Raises:
            ModelFailure: It goes to none.
        """
        name = request.run.model
        route = self._route(name)
        if route is None:
            raise self._goes_nowhere(name)
        if route.model is not None and route.model != name:
            run = msgspec.structs.replace(request.run, model=route.model)
            request = msgspec.structs.replace(request, run=run)
        return self._endpoints[route.endpoint].respond(request)

    def check_model(self, model: str) -> None:
        """Do nothing if the model goes to an endpoint.

        Args:
            model: As a run calls it.

        Raises:
            ModelFailure: It goes to none.
        """
        if self._route(model) is None:
            raise self._goes_nowhere(model)

    async def list_models(self) -> list[ModelInfo]:
        """Return the configured names, and those of the endpoints that lead there as they are.

        Raises:
            ModelFailure: There is none of the former, and no endpoint says.

        Cancellation: closes the requests.
        """
        names = [name for name in self._routes if not _is_pattern(name)]
        found = {name: ModelInfo(id=name) for name in [*names, *self._renamed]}
        failures: list[ModelFailure] = []

        async def ask(endpoint: str, backend: ListsModels) -> None:
            try:
                listed = await backend.list_models()
            except ModelFailure as failure:
                self._log(endpoint, failure.message)
                failures.append(failure)
                return
            self._logged.pop(endpoint, None)
            own = (info for info in listed if self._is_own(info.id, endpoint))
            found.update((info.id, info) for info in own)

        async with anyio.create_task_group() as group:
            for endpoint, backend in self._endpoints.items():
                if isinstance(backend, ListsModels):
                    group.start_soon(ask, endpoint, backend)
        if failures and not found:
            raise failures[0]
        return list(found.values())

    @property
    def endpoints(self) -> dict[str, Backend]:
        """Return the endpoints by their names."""
        return dict(self._endpoints)

    def some_models(self) -> dict[str, str | None]:
        """Return for each endpoint a model that is asked there; None where no row names one."""
        found: dict[str, str | None] = dict.fromkeys(self._endpoints)
        for name, route in self._routes.items():
            model = route.model or (None if _is_pattern(name) else name)
            found[route.endpoint] = found[route.endpoint] or model
        return found

    @property
    def endpoint_urls(self) -> list[str]:
        """Return those of the endpoints that have one."""
        known = (one for one in self._endpoints.values() if isinstance(one, ProbesEndpoints))
        return [url for one in known for url in one.endpoint_urls]

    async def probe(self, timeout: float) -> list[EndpointState]:
        """Return whether the endpoints can be reached, in their order.

        Args:
            timeout: Seconds for each, at the same time.

        Cancellation: closes the requests.
        """
        found: dict[str, list[EndpointState]] = {name: [] for name in self._endpoints}

        async def ask(name: str, backend: Backend) -> None:
            found[name] = await probe_endpoints(backend, timeout)

        async with anyio.create_task_group() as group:
            for name, backend in self._endpoints.items():
                group.start_soon(ask, name, backend)
        return [state for states in found.values() for state in states]

    async def aclose(self) -> None:
        """Close the endpoints, each also where another fails to.

        Cancellation: what could not be closed in time is abandoned.
        """
        async with AsyncExitStack() as stack:
            for backend in self._endpoints.values():
                closing = getattr(backend, "aclose", None)
                if closing is not None:
                    stack.push_async_callback(closing)

    def _log(self, endpoint: str, problem: str) -> None:
        """Write a line, but not the same one for each client that lists models meanwhile."""
        if self._logged.get(endpoint) != problem:
            self._logged[endpoint] = problem
            _logger.warning("endpoint %s: %s", endpoint, problem)

    def _check(self, name: str, route: Route) -> None:
        if route.endpoint not in self._endpoints:
            there = ", ".join(map(repr, self._endpoints))
            message = f"{name!r}: there is no endpoint {route.endpoint!r}; there are: {there}"
            raise ConfigError(message)

    def _resolve(self, name: str, row: str | Route) -> Route:
        if isinstance(row, Route):
            return row
        if not row or _is_pattern(row):
            message = f"{name!r}: {row!r} is the name of no model: a pattern stands on the left"
            raise ConfigError(message)
        found = self._route(row)
        if found is None:
            message = (
                f"{name!r}: the model {row!r} goes to no endpoint: write "
                f'{{ endpoint = "...", model = "{row}" }}, or give {row!r} a row of its own'
            )
            raise ConfigError(message)
        return msgspec.structs.replace(found, model=found.model or row)

    def _route(self, name: str) -> Route | None:
        found = self._routes.get(name)
        if found is not None:
            return found
        for pattern, route in self._routes.items():
            if _is_pattern(pattern) and _fits(name, pattern):
                return route
        return self._only

    def _is_own(self, name: str, endpoint: str) -> bool:
        """Return whether a run with this name gets this very model of the endpoint."""
        route = self._route(name)
        return route is not None and route.endpoint == endpoint and route.model in {None, name}

    def _goes_nowhere(self, name: str) -> ModelFailure:
        names = [*dict.fromkeys([*self._routes, *self._renamed])]
        there = ", ".join(f"'{one}'" for one in names[:_SHOWN_NAMES])
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        message = f"The model '{name[:_SHOWN_CHARS]}' is not served here; there are: {there}{more}."
        return ModelFailure(message)


def _followed(name: str, rows: Mapping[str, str | Route]) -> str | Route:
    """Return where a name leads, through the names that stand for other names.

    Raises:
        ConfigError: It leads back to itself.
    """
    row, seen = rows[name], [name]
    while isinstance(row, str) and row in rows and row != seen[-1]:
        if row in seen:
            message = f"{name!r} leads back to itself: {' -> '.join(map(repr, [*seen, row]))}"
            raise ConfigError(message)
        seen.append(row)
        following = rows[row]
        if isinstance(following, Route):
            break
        row = following
    return row


def _is_pattern(name: str) -> bool:
    """Return whether several names may fit.

    >>> _is_pattern("gpt-4o*"), _is_pattern("gpt-4o")
    (True, False)
    """
    return _ANY in name


def _fits(name: str, pattern: str) -> bool:
    """Return whether a pattern fits a name, in one pass over it.

    >>> _fits("gpt-4o-mini", "gpt-*-m*"), _fits("gpt", "gpt*t")
    (True, False)
    """
    first, *middle, last = pattern.split(_ANY)
    at, end = len(first), len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last) and at <= end):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
