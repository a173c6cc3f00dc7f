"""`POST /import`: whole threads and assistants in, as JSON lines; one line back for each.

Outside of the table of endpoints: it is no operation of the Assistants API, and its body is read
line by line, so that any number of threads takes the memory of one. Sending the same line again
does no harm, so it needs no `Idempotency-Key`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import msgspec
from aiohttp import web

from openai_runs.server.api_errors import Refusal, invalid
from openai_runs.server.http.decompression import broken, content_encoding
from openai_runs.server.http.request_parsing import is_inflated
from openai_runs.server.http.routes import SERVICE
from openai_runs.server.objects.incoming import (
    IncomingAssistant,
    IncomingThread,
    MisfitError,
    parse,
)
from openai_runs.server.store import Store, imports
from openai_runs.types.imports import ImportOutcome

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["importing"]

_TYPE: Final = "application/x-ndjson"
_FLAGS: Final = {"": False, "false": False, "0": False, "true": True, "1": True}


def importing(max_bytes: int, timeout: float) -> Handler:
    """Return the handler; a line may have `max_bytes`, and be silent for `timeout` seconds."""

    async def import_lines(request: web.Request) -> web.StreamResponse:
        store, dry_run = request.app[SERVICE].store, _is_dry_run(request)
        response = web.StreamResponse(headers={"content-type": _TYPE})
        try:
            async for line in _lines(request, max_bytes, timeout):
                outcome = await _import(store, line, dry_run=dry_run)
                if not response.prepared:
                    await response.prepare(request)
                await response.write(msgspec.json.encode(outcome) + b"\n")
        except Refusal as refusal:
            if not response.prepared:
                raise  # with its own status
            await response.write(refusal.encode() + b"\n")
            response.force_close()
        if not response.prepared:
            message = "The body holds no line: send a thread, or an assistant, on each."
            raise invalid(message)
        await response.write_eof()
        return response

    return import_lines


def _is_dry_run(request: web.Request) -> bool:
    """Return whether nothing is to be written.

    Raises:
        Refusal: The query says neither.
    """
    sent = request.query.get("dry_run", "")
    if sent not in _FLAGS:
        message = "Invalid 'dry_run': expected true or false."
        raise invalid(message, "dry_run")
    return _FLAGS[sent]


async def _import(store: Store, line: bytes, *, dry_run: bool) -> ImportOutcome:
    """Keep what the line holds, and return what became of it."""
    try:
        # In another thread: a long thread takes a while, and others are answered meanwhile.
        incoming = await anyio.to_thread.run_sync(parse, line)
    except MisfitError as misfit:
        return ImportOutcome(
            id=misfit.object_id, object=misfit.kind, outcome="invalid", reason=str(misfit)
        )
    match incoming:
        case IncomingAssistant() if dry_run:
            return await store.read(imports.plan_assistant, incoming)
        case IncomingAssistant():
            return await store.write(imports.add_assistant, incoming)
        case IncomingThread() if dry_run:
            return await store.read(imports.plan_thread, incoming)
    return await store.write(imports.add_thread, incoming)


async def _lines(request: web.Request, max_bytes: int, timeout: float) -> AsyncIterator[bytes]:
    """Yield the lines of the body that are not empty, one in memory at a time.

    Raises:
        Refusal: One is too long, or does not come, or the body is compressed.
    """
    compressed = content_encoding(request.headers.getall("content-encoding", ()))
    if compressed is not None and not is_inflated(request):
        message = "A compressed body is not read here: send the lines as they are."
        raise Refusal(message, status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    rest = bytearray()
    while piece := await _piece(request, timeout):
        begin = len(rest)
        rest += piece
        while (end := rest.find(b"\n", begin)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            begin = 0
            _check_size(len(line), max_bytes)
            if line.strip():
                yield line
        _check_size(len(rest), max_bytes)
    if rest.strip():
        yield bytes(rest)


def _check_size(size: int, max_bytes: int) -> None:
    """Refuse a line that is too long.

    Raises:
        Refusal: It is.
    """
    if size > max_bytes:
        message = (
            f"A line of more than {max_bytes} bytes is not read: start the server with a larger "
            "`max_import_bytes`, or leave the thread out."
        )
        raise Refusal(message, status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def _piece(request: web.Request, timeout: float) -> bytes:
    try:
        with anyio.fail_after(timeout):
            return await request.content.readany()
    except web.RequestPayloadError as error:  # badly chunked
        raise broken() from error
    except TimeoutError:
        message = "The request body took too long to arrive."
        raise Refusal(message, status_code=HTTPStatus.REQUEST_TIMEOUT) from None
