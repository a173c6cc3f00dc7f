"""Runs that a process which was killed has left, and their answers, as the server has them.

What may not live here: what becomes of their claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from openai_runs import AsyncClient, NotFoundError, Run, RunResult, StreamInterrupted
from openai_runs.conversations.creating import has_thread
from openai_runs.conversations.errors import ThreadGoneError
from openai_runs.conversations.record import Claim

__all__ = ["find_run", "joined", "raise_if_gone", "results_of", "text_of"]


async def find_run(client: AsyncClient, claim: Claim) -> Run | None:
    """Return the run of a claim; None if there is none on its thread."""
    if claim.thread_id is None:
        return None
    try:
        if claim.run_id is not None:
            return await client.runs.retrieve(claim.run_id, thread_id=claim.thread_id)
        return await client.runs.recover(claim.thread_id, idempotency_key=claim.key)
    except NotFoundError:
        return None


async def raise_if_gone(
    client: AsyncClient, error: StreamInterrupted, *, stored_key: str, key: object
) -> None:
    """Do nothing unless a stream was interrupted since its thread is not at the server any more.

    Raises:
        ThreadGoneError: It is not.
    """
    cause, thread_id = error.__cause__, error.thread_id
    if not isinstance(cause, NotFoundError) or thread_id is None:
        return
    if not await has_thread(client, thread_id):
        gone = ThreadGoneError(cause, thread_id=thread_id, stored_key=stored_key, key=key)
        raise gone from error


async def results_of(
    client: AsyncClient, claims: Iterable[Claim], known: Mapping[str, RunResult]
) -> list[RunResult]:
    """Return the answers of claims that were recovered, as far as they can be found.

    Args:
        client: What they are requested with.
        claims: Whose.
        known: Those that were fetched before, by run.
    """
    results = []
    for claim in claims:
        result = known.get(claim.run_id or "")
        if result is None and (run := await find_run(client, claim)) is not None:
            result = await client.runs.result(run)
        if result is not None:
            results.append(result)
    return results


def text_of(results: Iterable[RunResult]) -> str:
    """Return the text of answers, without those that were stopped."""
    return joined(*(result.text for result in results if result.run.status != "cancelled"))


def joined(*texts: str) -> str:
    """Return texts with blank lines between them."""
    return "\n\n".join(text for text in texts if text)
