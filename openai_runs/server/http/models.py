"""`GET /models` and `GET /models/{model}`: what the backend has, which many clients ask first.

They are outside of the table of endpoints: no operation of the Assistants API, and nothing stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from openai_runs.server.api_errors import Refusal
from openai_runs.server.backends.base import Backend, ModelFailure
from openai_runs.server.backends.models import ListsModels, ModelInfo, ServesModels
from openai_runs.server.http.outgoing import Outgoing, Reply

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Handler

__all__ = ["checking_model", "model_handlers"]

_RETRY_AFTER: Final = 5
"""Seconds a client is asked to wait while the model endpoint does not say what it has."""


def checking_model(backend: Backend) -> Callable[[str], None]:
    """Return what refuses a run of a model that the backend does not have."""
    if not isinstance(backend, ServesModels):
        return lambda model: None

    def check(model: str) -> None:
        try:
            backend.check_model(model)
        except ModelFailure as failure:
            raise Refusal(failure.message, param="model", code="model_not_found") from failure

    return check


def model_handlers(backend: Backend, outgoing: Outgoing) -> dict[str, Handler]:
    """Return the handlers of the two paths."""

    async def list_models(request: web.Request) -> web.StreamResponse:
        body: Any = {"object": "list", "data": await _models(backend)}
        return Reply(outgoing, 200, msgspec.json.encode(body))

    async def get_model(request: web.Request) -> web.StreamResponse:
        name = request.match_info["model"]
        found = next((info for info in await _models(backend) if info.id == name), None)
        if found is None:
            message = f"The model '{name[:100]}' is not listed here: GET /v1/models lists them."
            raise Refusal(message, status_code=404, param="model", code="model_not_found")
        return Reply(outgoing, 200, msgspec.json.encode(found))

    return {"/models": list_models, "/models/{model:.+}": get_model}


async def _models(backend: Backend) -> list[ModelInfo]:
    """Return the backend's models; none where it has no list.

    Raises:
        Refusal: The list cannot be had now.
    """
    if not isinstance(backend, ListsModels):
        return []
    try:
        return await backend.list_models()
    except ModelFailure as failure:
        raise Refusal(
            failure.message,
            status_code=503,
            kind="server_error",
            headers={"retry-after": str(_RETRY_AFTER)},
        ) from failure
