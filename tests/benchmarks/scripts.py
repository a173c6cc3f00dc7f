"""Small programs that a fresh interpreter is started with, for what starting costs."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CONSTRUCT", "FIRST_RUN", "HELP", "IMPORT"]


class _Program(NamedTuple):
    imports: str
    make: str
    call: str
    close: str

    def written(self, *, calls: bool) -> str:
        """Return the program; `BASE_URL` in it is to be replaced."""
        lines = [self.make, *([self.call] if calls else []), self.close]
        body = "\n".join(f"    {line}" for line in lines)
        return f"import asyncio\n{self.imports}\nasync def main():\n{body}\nasyncio.run(main())\n"


_RETRIEVE: Final = "assert (await {}.retrieve('run_1', thread_id='thread_1')).id == 'run_1'"
_OFFICIAL: Final = (
    "import warnings; warnings.simplefilter('ignore')\nfrom openai import AsyncOpenAI{}",
    "client = AsyncOpenAI(base_url='BASE_URL', api_key='k'{})",
    _RETRIEVE.format("client.beta.threads.runs"),
    "await client.close()",
)
_PROGRAMS: Final = {
    "baseline": _Program(
        "import aiohttp, anyio, msgspec",
        "client = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())",
        "async with client.get('BASE_URL/threads/thread_1/runs/run_1') as answer:"
        " assert msgspec.json.decode(await answer.read())['id'] == 'run_1'",
        "await client.close()",
    ),
    "ours": _Program(
        "from openai_runs import AsyncClient",
        "client = AsyncClient(base_url='BASE_URL', api_key='k')",
        _RETRIEVE.format("client.runs"),
        "await client.aclose()",
    ),
    "official 2.54, httpx": _Program(
        _OFFICIAL[0].format(""), _OFFICIAL[1].format(""), *_OFFICIAL[2:]
    ),
    "official 2.54, aiohttp": _Program(
        _OFFICIAL[0].format(", DefaultAioHttpClient"),
        _OFFICIAL[1].format(", http_client=DefaultAioHttpClient()"),
        *_OFFICIAL[2:],
    ),
}

CONSTRUCT: Final = {name: one.written(calls=False) for name, one in _PROGRAMS.items()}
"""Import and make a client; ours opens its session, and loads aiohttp, at the first call."""
FIRST_RUN: Final = {name: one.written(calls=True) for name, one in _PROGRAMS.items()}
"""Import, make a client, retrieve a run."""
IMPORT: Final = {name: one.imports for name, one in _PROGRAMS.items()}
HELP: Final = {
    "baseline": "import cyclopts",
    "ours": "import sys\nsys.argv = ['openai-runs', '--help']\n"
    "from openai_runs._cli import main\nmain()",
}
"""`openai-runs --help`, and what its toolkit takes to be imported."""
