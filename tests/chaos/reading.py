"""A stream read by hand: each event counted, and read on after the last one that came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Frame", "RawStream", "check_frames", "frames_of"]

_HEADERS: Final = {"openai-beta": "assistants=v2", "authorization": "Bearer chaos"}
_ENDS: Final = {
    f"thread.run.{status}"
    for status in ("completed", "failed", "cancelled", "expired", "incomplete")
}


class Frame(msgspec.Struct, frozen=True):
    """One event."""

    name: str
    epoch: int
    seq: int
    data: Any


def frames_of(body: bytes) -> list[Frame]:
    """Return the whole events in these bytes, but for comments and `done`."""
    found = []
    for text in body.split(b"\n\n")[:-1]:
        lines = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line[1:])
        if b"id" not in lines:
            continue
        epoch, _, seq = lines[b"id"].decode().partition("-")
        data = msgspec.json.decode(lines[b"data"])
        found.append(Frame(lines[b"event"].decode(), int(epoch), int(seq), data))
    return found


def text_in(frames: list[Frame]) -> str:
    """Return the text of all deltas."""
    return "".join(
        part["text"]["value"]
        for frame in frames
        if frame.name == "thread.message.delta"
        for part in frame.data["delta"]["content"]
    )


def check_frames(frames: list[Frame], *, first: int) -> list[str]:
    """Return what is wrong with the events of a run, of which the first has this number."""
    wrong = []
    numbers = [frame.seq for frame in frames]
    if numbers != list(range(first, first + len(numbers))):
        wrong.append(f"the events are numbered {numbers}")
    epochs = [frame.epoch for frame in frames]
    if epochs != sorted(epochs):
        wrong.append(f"the epochs are {epochs}")
    whole = [frame for frame in frames if frame.name == "thread.message.completed"]
    if len(whole) > 1:
        wrong.append("there are two answers")
    for frame in whole if first <= 2 else []:
        said = "".join(part["text"]["value"] for part in frame.data["content"])
        if said != text_in(frames):
            wrong.append(
                f"the text is {said[:200]!r}, and its deltas are {text_in(frames)[:200]!r}"
            )
    ends = [frame.name for frame in frames if frame.name in _ENDS]
    if len(ends) > 1 or (ends and frames[-1].name != ends[0]):
        wrong.append(f"the ends are {ends}")
    return wrong


class RawStream:
    """One run, streamed by whoever is asked."""

    def __init__(
        self, session: aiohttp.ClientSession, thread_id: str, key: str, body: dict[str, Any]
    ) -> None:
        """Start with nothing read."""
        self._session = session
        self._thread_id = thread_id
        self._key = key
        self._body = body
        self._frames: list[Frame] = []
        self._tries = 0
        self.run_id = ""
        self.done = False
        self.cuts = 0
        """How often events were taken back that had come."""
        self.wrong: list[str] = []

    @property
    def text(self) -> str:
        """Return the text of all deltas."""
        return text_in(self._frames)

    @property
    def status(self) -> str:
        """Return how the run ended, once it is done."""
        return self._frames[-1].name.rpartition(".")[2]

    async def read(self, url: str) -> None:
        """Read on, until the stream ends or breaks."""
        headers = dict(_HEADERS)
        runs = f"{url}/threads/{self._thread_id}/runs"
        if not self.run_id:
            headers["Idempotency-Key"] = f"{self._key}-{self._tries}"
            asked = self._session.post(runs, json=self._body, headers=headers)
        else:
            if self._frames:
                headers["Last-Event-ID"] = f"{self._frames[-1].epoch}-{self._frames[-1].seq}"
            asked = self._session.get(f"{runs}/{self.run_id}/stream", headers=headers)
        async with asked as answer:
            if answer.status == 200:
                await self._receive(answer)
            else:
                self._refused(answer.status, await answer.text())
        if self._frames and self._frames[-1].name in _ENDS:
            self.done = True
            self.wrong += check_frames(self._frames, first=self._frames[0].seq)

    def _refused(self, status: int, text: str) -> None:
        if "stream_position_lost" in text:  # what came was taken back: from the beginning
            self._frames.clear()
            self.cuts += 1
        elif "already has an active run" in text:  # which is kept under the key
            self._tries += 1
        elif status < 500:
            self.wrong.append(f"{status}: {text[:300]}")
            self.done = True

    async def _receive(self, answer: aiohttp.ClientResponse) -> None:
        rest = b""
        async for piece in answer.content.iter_any():
            whole, end, rest = (rest + piece).rpartition(b"\n\n")
            for frame in frames_of(whole + end):
                if frame.name == "thread.run.created":
                    self.run_id = frame.data["id"]
                self._frames.append(frame)
