"""Messages of a thread."""

from __future__ import annotations

from typing import Literal, Unpack

from openai_runs._client.arguments import (
    CallOptions,
    CreateMessageCall,
    ListCall,
    MessageContent,
    Metadata,
    parse,
)
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.encoding import plain
from openai_runs._client.flows.active_runs import when_free
from openai_runs._client.polling.waiter import Waiter
from openai_runs._client.usage import Resource, named
from openai_runs._protocol.endpoints import (
    CREATE_MESSAGE,
    DELETE_MESSAGE,
    GET_MESSAGE,
    LIST_MESSAGES,
    UPDATE_MESSAGE,
)
from openai_runs.types.base import Deleted
from openai_runs.types.messages import Message

__all__ = ["Messages"]


@named("client.messages")
class Messages(Resource):
    """`client.messages`."""

    def __init__(self, pipeline: Pipeline, waiter: Waiter) -> None:
        self._pipeline = pipeline
        self._waiter = waiter

    async def create(
        self,
        thread_id: str,
        *,
        role: Literal["user", "assistant"] | str,
        content: MessageContent,
        **arguments: Unpack[CreateMessageCall],
    ) -> Message:
        """Put a message on the thread and return it.

        Endpoint: POST /threads/{thread_id}/messages

        Args:
            role: `user` or `assistant`.
            content: Text, or a list of parts.
            **arguments: See `CreateMessageArguments` and `CallOptions`; `on_active_run`
                says what to do while a run of the thread is active: `raise` (default),
                `wait` or `cancel`.

        Raises:
            ActiveRunError: A run of the thread is active.
            NotFoundError: No such thread.
            APIError: The call failed; `.maybe_created` says whether the message may exist.

        Cancellation: closes the request; the message may have been created.
        """
        given = parse("messages.create", CreateMessageCall, arguments, role=role, content=content)

        async def attempt(options: CallOptions) -> Message:
            ids = {"thread_id": thread_id}
            spec = self._pipeline.build_request(CREATE_MESSAGE, ids, options, body=given.body)
            return await self._pipeline.send(spec, options)

        return await when_free(
            self._waiter,
            self._pipeline,
            thread_id,
            mode=given.start.get("on_active_run", "raise"),
            options=given.call,
            attempt=attempt,
        )

    async def retrieve(
        self, message_id: str, *, thread_id: str, **options: Unpack[CallOptions]
    ) -> Message:
        """Return one message.

        Endpoint: GET /threads/{thread_id}/messages/{message_id}

        Raises:
            NotFoundError: No such message.
            APIError: The call failed.
        """
        ids = {"thread_id": thread_id, "message_id": message_id}
        spec = self._pipeline.build_request(GET_MESSAGE, ids, options)
        return await self._pipeline.send(spec, options)

    async def update(
        self,
        message_id: str,
        *,
        thread_id: str,
        metadata: Metadata | None,
        **options: Unpack[CallOptions],
    ) -> Message:
        """Replace the message's metadata and return the message.

        Endpoint: POST /threads/{thread_id}/messages/{message_id}

        Args:
            metadata: At most 16 pairs, keys of 64 and values of 512 characters; None clears.

        Raises:
            NotFoundError: No such message.
            APIError: The call failed.

        Cancellation: closes the request; the change may have been made.
        """
        ids = {"thread_id": thread_id, "message_id": message_id}
        body = {"metadata": plain(metadata)}
        spec = self._pipeline.build_request(UPDATE_MESSAGE, ids, options, body=body)
        return await self._pipeline.send(spec, options)

    def list(
        self, thread_id: str, *, run_id: str | None = None, **arguments: Unpack[ListCall]
    ) -> AsyncPaginator[Message]:
        """Return the thread's messages: `await` for a page, `async for` for all.

        Endpoint: GET /threads/{thread_id}/messages

        Args:
            run_id: Only messages that this run wrote.
            **arguments: See `ListCall` and `CallOptions`.

        Raises:
            ValueError: An argument is out of bounds; nothing was sent.
        """
        return paginate(
            self._pipeline,
            LIST_MESSAGES,
            {"thread_id": thread_id},
            "messages.list",
            arguments,
            extra={"run_id": run_id},
        )

    async def delete(
        self, message_id: str, *, thread_id: str, **options: Unpack[CallOptions]
    ) -> Deleted:
        """Delete the message.

        Endpoint: DELETE /threads/{thread_id}/messages/{message_id}

        Raises:
            NotFoundError: No such message.
            APIError: The call failed.

        Cancellation: closes the request; the message may be gone.
        """
        ids = {"thread_id": thread_id, "message_id": message_id}
        spec = self._pipeline.build_request(DELETE_MESSAGE, ids, options)
        return await self._pipeline.send(spec, options)
