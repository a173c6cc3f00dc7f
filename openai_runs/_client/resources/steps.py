"""Run steps, read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

from openai_runs._client.arguments import CallOptions, ListCall
from openai_runs._client.core.paging import AsyncPaginator, paginate
from openai_runs._client.core.pipeline import Pipeline
from openai_runs._client.usage import Resource, named
from openai_runs._protocol.endpoints import GET_RUN_STEP, LIST_RUN_STEPS
from openai_runs.types.steps import RunStep

__all__ = ["Steps"]


@named("client.runs.steps")
class Steps(Resource):
    """`client.runs.steps`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def retrieve(
        self,
        step_id: str,
        *,
        thread_id: str,
        run_id: str,
        include: Iterable[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> RunStep:
        """Return one step.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}/steps/{step_id}

        Args:
            include: `step_details.tool_calls[*].file_search.results[*].content`.

        Raises:
            NotFoundError: No such step.
            APIError: The call failed.
        """
        ids = {"thread_id": thread_id, "run_id": run_id, "step_id": step_id}
        query = {"include": None if include is None else list(include)}
        spec = self._pipeline.build_request(GET_RUN_STEP, ids, options, query=query)
        return await self._pipeline.send(spec, options)

    def list(
        self,
        run_id: str,
        *,
        thread_id: str,
        include: Iterable[str] | None = None,
        **arguments: Unpack[ListCall],
    ) -> AsyncPaginator[RunStep]:
        """Return the run's steps: `await` for a page, `async for` for all.

        Endpoint: GET /threads/{thread_id}/runs/{run_id}/steps

        Args:
            include: `step_details.tool_calls[*].file_search.results[*].content`.
            **arguments: See `ListCall` and `CallOptions`.

        Raises:
            ValueError: An argument is out of bounds; nothing was sent.
        """
        return paginate(
            self._pipeline,
            LIST_RUN_STEPS,
            {"thread_id": thread_id, "run_id": run_id},
            "runs.steps.list",
            arguments,
            extra={"include": None if include is None else [*include]},
        )
