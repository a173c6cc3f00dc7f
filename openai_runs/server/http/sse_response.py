"""The answer of a stream: events from the log first, then as they are committed.

An answer is bytes of the log and nothing else, heartbeats and the final `done` apart, so
a client that lost the connection can reconnect after the last id it has received.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import anyio
import msgspec
from aiohttp import web

from openai_runs._log_ids import LogIds
from openai_runs._protocol import sse
from openai_runs.config import HEARTBEAT_INTERVAL
from openai_runs.server.api_errors import Refusal, Replay
from openai_runs.server.events.subscribers import Reader, Subscribers
from openai_runs.server.http.outgoing import Outgoing
from openai_runs.server.store import Chunk, Piece, Store, StreamStart, event_pages

__all__ = ["Streamer"]

_DONE: Final = sse.encode("done", b"[DONE]")
_HEADERS: Final = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx hands on what it has
}

_start_decoder: Final = msgspec.json.Decoder(StreamStart)
_logger = logging.getLogger("openai_runs.server")


class _Follower:
    """Reads a run's log from where a stream starts, and on as it grows."""

    def __init__(self, store: Store, reader: Reader, start: StreamStart, heartbeat: float) -> None:
        """Begin where the stream starts."""
        self._store = store
        self._reader = reader
        self._start = start
        self._heartbeat = heartbeat
        self._after = start.after
        self._epoch = start.epoch
        """That of the event `_after`, which tells it from one that was put in its place."""
        self._is_cut = False
        """Whether events were taken back that were sent."""
        self._at_end = start.ended
        self._within: Piece | None = None
        """What was sent last of events that are sent in pieces."""
        self.done = False
        """Whether the stream came to its own end, once `next` has returned None."""

    async def next(self) -> bytes | None:
        """Return more events, or a comment after a long silence; None if that was all."""
        while not self._is_over():
            if self._reader.behind:
                body = await self._read_log()
            else:
                body = await self._store.shared_json.join_frames(self._sent(self._reader.pop()))
            if body:
                return body
            if not self._reader.behind and self._reader.empty and not self._is_over():
                with anyio.move_on_after(self._heartbeat) as silence:
                    await self._reader.wait_changed()
                if silence.cancelled_caught:
                    return sse.COMMENT
        return None

    def _is_over(self) -> bool:
        reader = self._reader
        if self._is_cut:
            return True
        newest = not reader.behind and reader.empty
        self.done = self._at_end and (newest or self._start.once)
        return self.done or (newest and reader.ended)

    async def _read_log(self) -> bytes:
        reader = self._reader
        reader.restart_queue()
        page = await self._store.log.read(
            self._start.run_id, self._after, self._within, epoch=self._epoch
        )
        self._is_cut = page.cut
        if page.piece is not None:
            reader.behind = True
            return self._sent_piece(page.piece)
        if page.more:
            reader.behind = True
        elif not page.chunks and not page.active:  # deleted, or pruned
            reader.end()
        return b"".join(self._sent(chunk) for chunk in page.chunks)

    def _sent(self, chunk: Chunk | None) -> bytes:
        if chunk is None or chunk.last <= self._after or (self._at_end and self._start.once):
            return b""
        new = chunk.after(self._after)
        self._after, self._epoch = new.last, new.epoch
        self._at_end = new.ends_stream
        return new.body

    def _sent_piece(self, piece: Piece) -> bytes:
        self._within = piece if piece.end is not None else None
        if self._within is None:
            self._after, self._epoch = piece.last, piece.epoch
            self._at_end = piece.ends_stream
        return piece.body


class Streamer:
    """Answers with streams."""

    def __init__(
        self,
        store: Store,
        subscribers: Subscribers,
        outgoing: Outgoing,
        heartbeat: float = HEARTBEAT_INTERVAL,
    ) -> None:
        """Keep the four; `heartbeat`: seconds without an event after which a comment is sent."""
        self._store = store
        self._subscribers = subscribers
        self._outgoing = outgoing
        self._heartbeat = heartbeat

    async def start_again(self, replay: Replay) -> StreamStart:
        """Return where the stream began that answered the same request before.

        Raises:
            Refusal: The run, or its log, is gone.
        """
        start = _start_decoder.decode(replay.body)
        await self._store.read(event_pages.find_start, start.thread_id, start.run_id, None)
        return start

    async def send(
        self, request: web.Request, start: StreamStart, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Return the stream that begins there, once it was sent."""
        response = web.StreamResponse(headers={**_HEADERS, **headers})
        ids: LogIds = {"run_id": start.run_id, "thread_id": start.thread_id}
        try:
            with self._subscribers.join(start.run_id) as reader:
                writer = await response.prepare(request)
                assert writer is not None
                self._outgoing.begin(request.transport, f"run {start.run_id}", ids)
                follower = _Follower(self._store, reader, start, self._heartbeat)
                while (body := await self._next(follower, ids)) is not None:
                    await self._outgoing.write(writer, request.transport, body)
                await response.write_eof(_DONE if follower.done else b"")
        except ConnectionError:
            _logger.debug("run %s: a reader has disconnected", start.run_id, extra=ids)
        except Exception:  # the answer has begun, so its status is sent already
            _logger.exception("run %s: a stream failed", start.run_id, extra=ids)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _next(self, follower: _Follower, ids: LogIds) -> bytes | None:
        try:
            return await follower.next()
        except Refusal as refusal:  # the database cannot be read: the reader may reconnect
            _logger.warning("a stream ends early: %s", refusal.message, extra=ids)
            return None
