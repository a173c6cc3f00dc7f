"""Assistants."""

from __future__ import annotations

from typing import Unpack

from openai_runs._client.arguments import (
    CallOptions,
    CreateAssistantCall,
    ListCall,
    UpdateAssistantCall,
    parse,
)
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.usage import Resource, named
from openai_runs._protocol.endpoints import (
    CREATE_ASSISTANT,
    DELETE_ASSISTANT,
    GET_ASSISTANT,
    LIST_ASSISTANTS,
    UPDATE_ASSISTANT,
)
from openai_runs.types.assistants import Assistant
from openai_runs.types.base import Deleted

__all__ = ["Assistants"]


@named("client.assistants")
class Assistants(Resource):
    """`client.assistants`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def create(self, *, model: str, **arguments: Unpack[CreateAssistantCall]) -> Assistant:
        """Make an assistant and return it.

        Endpoint: POST /assistants

        Args:
            model: The model it uses.
            **arguments: See `CreateAssistantArguments` and `CallOptions`.

        Raises:
            BadRequestError: An argument is rejected; `.param` names it.
            APIError: The call failed; `.maybe_created` says whether it may exist.

        Cancellation: closes the request; the assistant may have been created.
        """
        given = parse("assistants.create", CreateAssistantCall, arguments, model=model)
        spec = self._pipeline.build_request(CREATE_ASSISTANT, {}, given.call, body=given.body)
        return await self._pipeline.send(spec, given.call)

    async def retrieve(self, assistant_id: str, **options: Unpack[CallOptions]) -> Assistant:
        """Return one assistant.

        Endpoint: GET /assistants/{assistant_id}

        Raises:
            NotFoundError: No such assistant.
            APIError: The call failed.
        """
        spec = self._pipeline.build_request(GET_ASSISTANT, {"assistant_id": assistant_id}, options)
        return await self._pipeline.send(spec, options)

    async def update(
        self, assistant_id: str, **arguments: Unpack[UpdateAssistantCall]
    ) -> Assistant:
        """Change the assistant and return it; what is not given stays as it is.

        Endpoint: POST /assistants/{assistant_id}

        Args:
            **arguments: See `UpdateAssistantArguments` and `CallOptions`.

        Raises:
            NotFoundError: No such assistant.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        given = parse("assistants.update", UpdateAssistantCall, arguments)
        ids = {"assistant_id": assistant_id}
        spec = self._pipeline.build_request(UPDATE_ASSISTANT, ids, given.call, body=given.body)
        return await self._pipeline.send(spec, given.call)

    def list(self, **arguments: Unpack[ListCall]) -> AsyncPaginator[Assistant]:
        """Return the assistants: `await` for a page, `async for` for all.

        Endpoint: GET /assistants

        Args:
            **arguments: See `ListCall` and `CallOptions`.

        Raises:
            ValueError: An argument is out of bounds; nothing was sent.
        """
        return paginate(self._pipeline, LIST_ASSISTANTS, {}, "assistants.list", arguments)

    async def delete(self, assistant_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete the assistant; its runs stay readable.

        Endpoint: DELETE /assistants/{assistant_id}

        Raises:
            NotFoundError: No such assistant.
            APIError: The call failed.

        Cancellation: closes the request; the assistant may be gone.
        """
        spec = self._pipeline.build_request(
            DELETE_ASSISTANT, {"assistant_id": assistant_id}, options
        )
        return await self._pipeline.send(spec, options)
