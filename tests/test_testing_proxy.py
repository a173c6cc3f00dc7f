"""The fault proxy passes what it is not to touch, and breaks the rest at the byte it is told."""

import asyncio

import pytest

from openai_runs.testing import (
    Cut,
    Delay,
    End,
    FaultProxy,
    Pass,
    Refuse,
    Reset,
    Stall,
    Trickle,
)
from tests.proxying import TAPES, TEXT, Caller, Ended, calling, payload_of, upstream

OFFSETS = [0, 1, 19, 20, 21, 22, len(TEXT) - 1]
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(params=list(TAPES))
def tape(request: pytest.FixtureRequest) -> bytes:
    """An event stream, framed in each of the three ways."""
    return TAPES[request.param]


async def ask(proxy: FaultProxy, line: str = "GET /v1/events") -> Ended:
    """Return what one request on a connection of its own is answered, until it ends.

    The tapes that keep the connection open end with the proxy.
    """
    async with calling(proxy.url) as caller:
        await caller.ask(line)
        return await caller.read_all()


async def read_whole(caller: Caller, tape: bytes) -> None:
    """Read an answer that must be the tape."""
    assert await caller.read(len(tape)) == tape


# --- what passes


async def test_answers_pass_byte_by_byte(tape: bytes) -> None:
    """Without a plan the proxy adds, drops and reframes nothing, whatever ends the body."""
    async with (
        upstream(tape) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        await caller.ask("GET /v1/events?a=1", "Last-Event-ID: 1-2\r\nAPI-Key: sk-1\r\n")
        await read_whole(caller, tape)

    lines = ["Host: 127.0.0.1", "Last-Event-ID: 1-2", "API-Key: sk-1"]
    assert server.heads[0].decode().split("\r\n")[1:-2] == lines
    assert proxy.answers[0].body == TEXT


async def test_answers_of_one_connection_pass_in_order() -> None:
    """A connection is kept alive over answers of each framing, and over requests sent at once."""
    tapes = [TAPES["chunked"], JSON, TAPES["length"], JSON]
    async with (
        upstream(*tapes) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        for tape in tapes[:2]:
            await caller.ask()
            await read_whole(caller, tape)
        await caller.ask()
        await caller.ask()
        await read_whole(caller, b"".join(tapes[2:]))

    assert proxy.connections == 1
    assert [answer.complete for answer in proxy.answers] == [True] * 4


@pytest.mark.parametrize(
    ("line", "tape"),
    [
        ("HEAD /v1/x", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        ("DELETE /v1/x", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET /v1/x", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
    ],
    ids=lambda value: str(value)[:8],
)
async def test_answers_without_a_body_are_over_at_once(line: str, tape: bytes) -> None:
    """HEAD, 204 and 304 have no body, whatever their headers say; the connection goes on."""
    async with (
        upstream(tape, JSON) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        await caller.ask(line)
        await read_whole(caller, tape)
        await caller.ask()
        await read_whole(caller, JSON)


async def test_interim_answers_pass_before_the_answer() -> None:
    """A 100 or 103 is no answer; what was planned strikes the answer behind it."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with upstream(interim + TAPES["length"]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=3))

        ended = await ask(proxy)

    assert ended.raw.startswith(interim)
    assert ended.raw.endswith(b"\r\n\r\neve")


# --- what is broken


@pytest.mark.parametrize("after", OFFSETS)
async def test_cut_closes_after_exactly_n_bytes(after: int, tape: bytes) -> None:
    """The client has n bytes of text, then FIN; what it has is what the server sent."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=after))

        ended = await ask(proxy)

    assert (payload_of(ended.raw), ended.how) == (TEXT[:after], "FIN")
    assert tape.startswith(ended.raw)
    assert (proxy.answers[0].body, proxy.answers[0].complete) == (TEXT[:after], False)


@pytest.mark.parametrize("after", OFFSETS)
async def test_reset_resets_after_exactly_n_bytes(after: int, tape: bytes) -> None:
    """The client has n bytes of text, then RST."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Reset(after=after))

        ended = await ask(proxy)

    assert (payload_of(ended.raw), ended.how) == (TEXT[:after], "RST")


@pytest.mark.parametrize("after", OFFSETS)
async def test_stall_sends_exactly_n_bytes_then_nothing(after: int, tape: bytes) -> None:
    """The connection stays open and silent until the proxy closes."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Stall(after=after))
        async with calling(proxy.url) as caller:
            await caller.ask()
            head = tape.index(b"\r\n\r\n") + 4
            got = await caller.read(head)
            while len(payload_of(got)) < after:
                got += await caller.read(1)
            rest = asyncio.create_task(caller.read_all())
            silent = not (await asyncio.wait([rest], timeout=0.01))[0]

            await proxy.aclose()
            ended = await rest

    assert silent
    assert (payload_of(got + ended.raw), ended.how) == (TEXT[:after], "FIN")


async def test_stall_of_some_seconds_lets_the_rest_follow(tape: bytes) -> None:
    """A pause in mid-body changes no byte."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Stall(after=20, seconds=0.01))
        async with calling(proxy.url) as caller:
            await caller.ask()
            await read_whole(caller, tape)

    assert proxy.answers[0].complete


@pytest.mark.parametrize("after", OFFSETS)
@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_end_is_a_complete_answer_of_n_bytes(after: int, framing: str) -> None:
    """HTTP sees nothing wrong: the last chunk is there, or the end of the connection is the end."""
    async with upstream(TAPES[framing]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(End(after=after))

        ended = await ask(proxy)

    assert (payload_of(ended.raw), ended.how) == (TEXT[:after], "FIN")
    assert b"\r\nConnection: close\r\n" in ended.raw
    assert ended.raw.endswith(b"0\r\n\r\n") is (framing == "chunked")


async def test_end_of_an_answer_of_known_length_is_a_cut() -> None:
    """The client was promised more."""
    async with upstream(TAPES["length"]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(End(after=5))

        ended = await ask(proxy)

    assert (payload_of(ended.raw), ended.how) == (TEXT[:5], "FIN")


@pytest.mark.parametrize("fault", [Cut, End, Reset, Stall])
async def test_shorter_answer_passes_whole(fault: type[Cut], tape: bytes) -> None:
    """An offset behind the end strikes nothing, and the fault is used up."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(fault(after=len(TEXT) + 1))
        async with calling(proxy.url) as caller:
            await caller.ask("GET /v1/events", "Connection: close\r\n")
            got = b""
            while payload_of(got) != TEXT:
                got += await caller.read(1)

            assert (proxy.answers[0].body, proxy.faults_left) == (TEXT, 0)


async def test_end_behind_the_end_is_still_a_complete_answer() -> None:
    """A chunked answer that is shorter than told has its last chunk."""
    async with upstream(TAPES["chunked"]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(End(after=1000))

        ended = await ask(proxy)

    assert payload_of(ended.raw) == TEXT
    assert ended.raw.endswith(b"\r\n0\r\n\r\n")


async def test_trickle_changes_no_byte_but_sends_them_one_by_one(tape: bytes) -> None:
    """The client reads many small pieces that add up to the answer."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Trickle(pause=0.0001))
        async with calling(proxy.url) as caller:
            await caller.ask()
            await read_whole(caller, tape)

    assert caller.reads > len(TEXT) // 4


async def test_delay_only_takes_time(tape: bytes) -> None:
    """The answer is whole."""
    async with upstream(tape) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Delay(0.01))
        async with calling(proxy.url) as caller:
            await caller.ask()
            await read_whole(caller, tape)


async def test_refused_request_never_reaches_the_server() -> None:
    """The connection is reset; the next one works."""
    async with upstream(JSON) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Refuse())

        refused = await ask(proxy, "GET /v1/first")
        async with calling(proxy.url) as caller:
            await caller.ask("GET /v1/second")
            await read_whole(caller, JSON)

    assert (refused.raw, refused.how) == (b"", "RST")
    assert [request.path for request in proxy.requests] == ["/first", "/second"]
    assert [head.split()[1] for head in server.heads] == [b"/v1/second"]


# --- what is aimed at


async def test_event_streams_are_struck_and_nothing_else() -> None:
    """Without `on` a plan waits for the next answer that is an event stream."""
    async with upstream(JSON, JSON, TAPES["length"]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=1))
        async with calling(proxy.url) as caller:
            for _ in range(2):
                await caller.ask()
                await read_whole(caller, JSON)
            assert proxy.faults_left == 1
            await caller.ask()
            ended = await caller.read_all()

    assert payload_of(ended.raw) == TEXT[:1]
    assert proxy.faults_left == 0


@pytest.mark.parametrize("on", ["/runs", "post /V1", "last-event-id: 3", "X-Marked"])
async def test_plan_aims_at_a_text_in_the_head_of_the_request(on: str) -> None:
    """Method, path and headers can be named, in any case; the answer may be of any kind."""
    async with upstream(JSON) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=1), on=on)
        async with calling(proxy.url) as caller:
            await caller.ask("GET /v1/threads")
            await read_whole(caller, JSON)
            await caller.ask("POST /v1/runs", "Last-Event-Id: 3\r\nx-marked: 1\r\n", b"{}")
            ended = await caller.read_all()

    assert payload_of(ended.raw) == b"{"


async def test_empty_aim_is_the_next_request_whatever_it_is() -> None:
    """`on=""` is in every head."""
    async with upstream(JSON) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Reset(), on="")

        ended = await ask(proxy)

    assert (payload_of(ended.raw), ended.how) == (b"", "RST")


async def test_faults_of_a_plan_strike_one_after_the_other() -> None:
    """`Pass` lets an answer go by; a refusal waits for its turn."""
    async with upstream(TAPES["length"]) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=1), Refuse(), Pass(), Cut(after=2))
        got = [await ask(proxy), await ask(proxy)]
        async with calling(proxy.url) as caller:
            await caller.ask()
            await read_whole(caller, TAPES["length"])
        got.append(await ask(proxy))

    assert [payload_of(ended.raw) for ended in got] == [TEXT[:1], b"", TEXT[:2]]
    assert proxy.faults_left == 0


async def test_plans_do_not_wait_for_each_other() -> None:
    """Each plan strikes what it aims at; the older one where two aim at the same."""
    async with upstream(JSON) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Cut(after=5))
        proxy.plan(Cut(after=0), on="/a")
        proxy.plan(Cut(after=1), on="/a")

        first, second = await ask(proxy, "GET /v1/a"), await ask(proxy, "GET /v1/a")

    assert [payload_of(first.raw), payload_of(second.raw)] == [b"", b"{"]
    assert proxy.faults_left == 1


@pytest.mark.parametrize("fault", [Cut, End, Reset, Stall])
def test_negative_offset_is_refused(fault: type[Cut]) -> None:
    """Before anything is planned."""
    with pytest.raises(ValueError, match="after=-1"):
        fault(after=-1)
