"""What is measured: one row for each piece of work, with what its processes are told."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.benchmarks import samples, scripts
from tests.benchmarks.contestants import AIOHTTP, ALL, BASELINE, OURS, Contestant, starting

__all__ = ["GROUPS", "ROWS", "Row"]

_CANNED = ("tests.benchmarks.servers.canned", "1999")
_BODY = {
    "assistant_id": "asst_9r8Vd5TzQ0bLkXn3WmPf7YcA",
    "additional_messages": [{"role": "user", "content": "Where is my order?"}],
    "instructions": samples.INSTRUCTIONS,
    "metadata": {"customer": "c-1042"},
}


class Row(NamedTuple):
    """One row of a table."""

    name: str
    """As `--only` takes it."""
    title: str
    group: str
    """The table it stands in."""
    work: str
    """What the client's module is asked to do."""
    params: dict[str, Any]
    """What each process is told."""
    server: tuple[str, ...] = _CANNED
    """Module and arguments of the server's process; empty: none is needed."""
    quick: dict[str, Any] = {}
    """What `--quick` tells in place of `params`."""
    quick_server: tuple[str, ...] | None = None
    contestants: tuple[Contestant, ...] = ALL
    rounds: int | None = None
    """The most rounds it is given; None: as many as asked for."""

    def told(self, *, quick: bool) -> dict[str, Any]:
        """Return what each process is told."""
        return {**self.params, **self.quick} if quick else self.params

    def served(self, *, quick: bool) -> tuple[str, ...]:
        """Return module and arguments of the server's process."""
        return self.quick_server if quick and self.quick_server else self.server

    def shown(self, *, quick: bool) -> str:
        """Return the title."""
        longest = self.served(quick=quick)[-1:]
        return self.title.format(**self.told(quick=quick), longest="".join(longest))


def _stream(name: str, title: str, thread: str, count: int, **more: Any) -> Row:
    params = {"thread": thread, "count": count, **more}
    quick = {"count": max(count // 4, 1)}
    return Row(f"sse-{name}", f"SSE, {title}, an event", "cpu", "stream", params, quick=quick)


def _waits(
    name: str,
    runs: int,
    longest: int,
    rounds: int,
    contestants: tuple[Contestant, ...] = ALL,
) -> Row:
    """Return a row of waits on runs of 2 s and more."""
    params = {"runs": runs, "start": 1.0, "interval": 1.0, "limit": longest + 60}
    server = ("tests.benchmarks.servers.waits", "2")
    return Row(
        f"waits-{name}",
        "{runs:,} runs of 2 to {longest} s, polled each second",
        "waits",
        "wait",
        params,
        (*server, str(longest)),
        quick={"limit": 30},
        quick_server=(*server, "8"),
        contestants=contestants,
        rounds=rounds,
    )


def _start(name: str, title: str, codes: dict[str, str]) -> Row:
    """Return a row of starting a fresh interpreter."""
    return Row(
        f"start-{name}",
        title,
        "start",
        "start",
        {"count": 5},
        quick={"count": 3},
        contestants=starting(codes),
        rounds=3,
    )


def _serve(at_once: int, runs: int) -> Row:
    """Return a row of load on our server."""
    kinds = {"held by Prefer: wait": True, "looked at every 10 ms": False}
    load = "tests.benchmarks.clients.load"
    return Row(
        f"server-{at_once}",
        f"a run from question to answer, {at_once} at once",
        "server",
        "load",
        {"runs": runs, "at_once": at_once},
        ("tests.benchmarks.servers.ours", "model"),
        quick={"runs": runs // 4},
        contestants=tuple(
            Contestant(name, "ours", load, params={"held": held}) for name, held in kinds.items()
        ),
    )


def _limited() -> Row:
    """Return the row of 500 waits under a budget of 1,000 requests a minute."""
    learnt = OURS._replace(name="ours, limits sent by the server")
    fixed = OURS._replace(name="ours, limits fixed", params={"per_minute": 1000})
    return Row(
        "limit",
        "{runs:,} runs of 2 to {longest} s",
        "limit",
        "wait",
        {"runs": 500, "start": 1.0, "interval": 1.0, "limit": 180},
        ("tests.benchmarks.servers.limited", "1000", "2", "60"),
        contestants=(BASELINE, learnt, fixed, AIOHTTP),
        rounds=1,
    )


def _batch(
    name: str, title: str, keys: str, contestants: tuple[Contestant, ...], **more: Any
) -> Row:
    """Return a row of a batch in bad weather."""
    params = {"items": 5000, "at_once": 200, "threads": keys == "none", **more}
    return Row(
        f"map-{name}",
        title,
        "map",
        "batch",
        params,
        ("tests.benchmarks.servers.storm", keys),
        quick={"items": 1000},
        contestants=contestants,
        rounds=2,
    )


ROWS = (
    Row(
        "retrieve",
        "retrieve a run, 1 at a time",
        "cpu",
        "retrieve",
        {"count": 2000, "at_once": 1},
        quick={"count": 800},
    ),
    Row(
        "retrieve-100",
        "retrieve a run, 100 at a time",
        "cpu",
        "retrieve",
        {"count": 3000, "at_once": 100},
        quick={"count": 1000},
    ),
    Row(
        "create",
        "create a run",
        "cpu",
        "create",
        {"body": _BODY, "count": 1500},
        quick={"count": 300},
    ),
    Row("list-runs", "list 100 runs", "cpu", "list_runs", {"count": 300}, quick={"count": 150}),
    Row("list-steps", "list 100 steps", "cpu", "list_steps", {"count": 300}, quick={"count": 150}),
    _stream("body", "2,010 events in one body", "thread_body", 10),
    _stream("chunks", "one HTTP chunk an event", "thread_chunks", 10),
    _stream("timed", "one event each millisecond", "thread_timed", 1),
    _stream("snapshots", "with snapshots kept", "thread_body", 10, snapshots=True),
    Row(
        "decode",
        "decode 1 run",
        "cpu",
        "decode",
        {"many": False, "count": 50_000},
        (),
        quick={"count": 10_000},
    ),
    Row(
        "decode-100",
        "decode 100 runs",
        "cpu",
        "decode",
        {"many": True, "count": 800},
        (),
        quick={"count": 200},
    ),
    _start("import", "import", scripts.IMPORT),
    _start("construct", "import and construct", scripts.CONSTRUCT),
    _start("first-run", "import, construct, retrieve a run", scripts.FIRST_RUN),
    _start("help", "openai-runs --help; baseline: import cyclopts", scripts.HELP),
    _waits("1000", 1000, 8, 3),
    _waits("1000-long", 1000, 60, 1, (BASELINE, OURS)),
    _waits("10000", 10_000, 12, 1),
    _waits("10000-long", 10_000, 60, 1, (BASELINE, OURS, AIOHTTP)),
    Row(
        "waits-bare",
        "what the caller of 10,000 waits holds himself",
        "waits",
        "bare",
        {"runs": 10_000},
        (),
        contestants=(OURS,),
    ),
    Row(
        "waits-held",
        "{runs:,} runs of 2 to {longest} s on our server, held back by it",
        "waits",
        "wait",
        {
            "runs": 1000,
            "start": 1.0,
            "interval": 1.0,
            "limit": 120,
            "served": True,
            "long_poll": 30,
            "connections": 2100,
        },
        ("tests.benchmarks.servers.ours", "timed", "60"),
        quick_server=("tests.benchmarks.servers.ours", "timed", "8"),
        contestants=(BASELINE, OURS, AIOHTTP),
        rounds=1,
    ),
    _limited(),
    _batch("keys", "{items:,} items, the server remembers keys", "keys", (OURS,)),
    _batch(
        "1000", "{items:,} items, the server remembers keys", "keys", (OURS, AIOHTTP), items=1000
    ),
    _batch("no-keys", "{items:,} items on threads, and no keys", "none", (OURS,)),
    _batch("left", "{items:,} items, left at item {leave}", "keys", (OURS,), leave=100),
    _serve(1, 200),
    _serve(50, 2000),
)

GROUPS = {
    "cpu": "CPU of the client for one piece of work",
    "start": "Starting, over a bare interpreter",
    "waits": "Many waits at once",
    "limit": "A budget of 1,000 requests a minute",
    "map": "runs.map through storms of 429, 503s and lost connections",
    "server": "The server, durable, in front of a model endpoint that answers at once",
}
