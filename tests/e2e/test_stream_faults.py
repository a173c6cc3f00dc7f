"""A stream broken anywhere, in any way, ends with the whole text and a completed run.

Each run calls a tool and says 60 pieces, one of them 500. The server is the real one, once as it
is and once without what resuming needs; a proxy in front of it breaks the connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from openai_runs.testing import Cut, End, Fault, FaultProxy, Pass, Refuse, Reset, Stall, Trickle
from tests.e2e.streamed_run import (
    IMPATIENT,
    MANY,
    ON,
    PIECES,
    SHAPE,
    Place,
    Served,
    boundaries,
    check,
    names_in,
    places,
    served,
    stream_through,
)
from tests.tiers import few

FAULTS: dict[str, Callable[..., Fault]] = {"fin": Cut, "rst": Reset, "stall": Stall, "eof": End}


@pytest.fixture(scope="module", params=["resuming", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Yield the server of all these tests."""
    with served(resumes=request.param == "resuming") as one:
        yield one


async def broken(server: Served, place: Place, how: str) -> None:
    """Check a run whose stream is broken once; resumed, it tells what it would have told."""
    async with FaultProxy(server.url) as proxy:
        proxy.plan(FAULTS[how](after=place.after), on=ON[place.leg])
        idle = IMPATIENT if how == "stall" else None
        streamed = await stream_through(proxy.url, idle_timeout=idle)
        check(streamed, proxy)
        assert proxy.faults_left == 0
    if server.resumes and how != "stall":
        assert streamed.names == server.names


def random_place(server: Served, seed: int) -> Place:
    """Return a byte of one of the legs, each of which has half of the seeds."""
    leg = ["create", "submit"][seed % 2]
    return Place(leg, random.Random(seed).randrange(len(server.legs[leg])))


async def test_run_is_told_in_this_shape_when_nothing_happens(server: Served) -> None:
    """What the other tests break is what they think it is."""
    for leg, kinds in SHAPE.items():
        names = names_in(server.legs[leg])
        assert [n for n, before in zip(names, ["", *names], strict=False) if n != before] == kinds
    assert list(places(server.legs)) == boundaries()
    assert server.names.count("thread.message.delta") == PIECES
    assert server.names.count("thread.run.step.delta") > 3


@pytest.mark.parametrize("how", few(FAULTS, kept=["stall", "eof"], rest=pytest.mark.seeds))
@pytest.mark.parametrize("boundary", boundaries())
async def test_stream_is_whole_when_broken_between_events(
    server: Served, boundary: str, how: str
) -> None:
    """At each kind of event: by silence and by a clean end, which no break within one is like."""
    await broken(server, places(server.legs)[boundary], how)


@pytest.mark.parametrize("how", ["fin", "rst", "stall"])
@pytest.mark.parametrize("seed", few(range(40), kept=range(8), rest=pytest.mark.seeds))
async def test_stream_is_whole_when_broken_anywhere(server: Served, seed: int, how: str) -> None:
    """At random bytes, half of them in each leg."""
    await broken(server, random_place(server, seed), how)


@pytest.mark.parametrize("seed", few(range(15), kept=range(5), rest=pytest.mark.seeds))
async def test_stream_is_whole_when_broken_again_and_again(server: Served, seed: int) -> None:
    """Two to four breaks, also of what is sent instead, with failing requests in between."""
    chance = random.Random(seed)

    def any_fault(after: int) -> Fault:
        return FAULTS[chance.choice(list(FAULTS))](after=after)

    async with FaultProxy(server.url) as proxy:
        first, second = random_place(server, 2 * seed), random_place(server, 2 * seed + 1)
        proxy.plan(any_fault(first.after), on=ON["create"])
        proxy.plan(any_fault(second.after), on=ON["submit"])
        proxy.plan(any_fault(chance.randrange(6000)), any_fault(chance.randrange(6000)))
        proxy.plan(Pass(), Refuse(), Pass(), Reset(after=chance.randrange(400)), on="GET ")
        check(await stream_through(proxy.url, idle_timeout=IMPATIENT), proxy)


async def test_long_stream_is_whole_when_broken_in_its_last_third(server: Served) -> None:
    """Hundreds of events are not told again, and none of those that follow is missed."""
    async with FaultProxy(server.url) as proxy:
        proxy.plan(Reset(after=70_000), on=ON["submit"])
        check(await stream_through(proxy.url, count=MANY), proxy, count=MANY)
        assert proxy.faults_left == 0


async def test_stream_is_whole_when_it_comes_byte_by_byte(server: Served) -> None:
    """No event is told before it is whole, and none is missed."""
    async with FaultProxy(server.url) as proxy:
        proxy.plan(Trickle(), Trickle())
        streamed = await stream_through(proxy.url)
        check(streamed, proxy)

    assert not streamed.result.recovered
