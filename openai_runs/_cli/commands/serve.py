"""`openai-runs serve`: the server until a signal ends it.

Standard output gets one line, for whoever started it; all else goes to standard error.
"""

import asyncio
import errno
import gc
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Literal

import anyio
import msgspec

from openai_runs._cli.ending import USAGE, Closed, Stop, stopped
from openai_runs._cli.environment import secret
from openai_runs._cli.models import Models, choose_backend
from openai_runs._cli.outputs import say
from openai_runs._cli.signals import SIGNALS
from openai_runs._protocol.hosts import is_loopback
from openai_runs._tracing import ServerTracing
from openai_runs.config import MODEL_PROBE_TIMEOUT, VERSION
from openai_runs.errors import ConfigError
from openai_runs.server import Backend, EchoBackend, LocalServer, Worker
from openai_runs.server.backends.probe import EndpointState, probe_endpoints
from openai_runs.server.listening import max_model_connections, raise_descriptor_limit
from openai_runs.server.log_filter import ContentFilter
from openai_runs.server.store import is_url, place_of

__all__ = [
    "Settings",
    "banner",
    "describe_backend",
    "log_to_stderr",
    "make_tracing",
    "perform",
    "run_until_signal",
    "spare_collections",
    "state_facts",
]

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
_COLUMN: Final = 10
"""Characters before the facts of the banner."""
_SHOWN_MODELS: Final = 5
"""Names of models that are listed."""
_GC_THRESHOLDS: Final = (5_000, 10, 5)
"""Objects, and collections of younger ones, between two collections; Python's: 700, 10, 10.

A full one comes after 50 of the youngest: what cancelled tasks leave in cycles waits for it. The
objects that it looks at are few, since the others are frozen.
"""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told."""

    host: str
    port: int
    db: str
    """A file, or a URL."""
    executes: bool = True
    models: Models
    api_key_env: str | None
    hosted_tools: Literal["error", "ignore"]
    run_lifetime: int
    otel: bool = False


def perform(settings: Settings) -> int:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; return the exit code.

    Raises:
        Stop: The settings contradict each other, or the server cannot start.
    """
    backend = choose_backend(settings.models, os.environ)
    api_key = secret("--api-key-env", settings.api_key_env, os.environ)
    _check(settings, api_key)
    log_to_stderr()
    raise_descriptor_limit()
    server = LocalServer(
        settings.db,
        backend,
        host=settings.host,
        port=settings.port,
        api_key=api_key,
        hosted_tools=settings.hosted_tools,
        run_lifetime=settings.run_lifetime,
        max_concurrent_runs=max_model_connections(),
        executes=settings.executes,
        tracing=make_tracing() if settings.otel else None,
    )
    SIGNALS.install()
    SIGNALS.keep()
    try:
        return asyncio.run(_serve(server, settings))
    finally:
        SIGNALS.ignore()


def _check(settings: Settings, api_key: str | None) -> None:
    """Check what the options say together.

    Raises:
        Stop: They contradict each other.
    """
    if not settings.host:
        sentence = "--host is empty: name an address, such as 127.0.0.1, or 0.0.0.0 for all"
        raise Stop(sentence, USAGE)
    if settings.run_lifetime < 1:
        sentence = f"--run-lifetime {settings.run_lifetime}: name at least 1 second"
        raise Stop(sentence, USAGE)
    if api_key is None and not is_loopback(settings.host):
        sentence = (
            f"--host {settings.host} can be reached from other machines, so clients must send a "
            "key: put one into an environment variable and name it with --api-key-env"
        )
        raise Stop(sentence, USAGE)
    if not settings.executes and not is_url(settings.db):
        sentence = (
            f"--no-execute: {settings.db} is a file, which one server has alone, so nobody else "
            "could execute its runs; name a database that processes share, --db postgresql://..."
        )
        raise Stop(sentence, USAGE)


def log_to_stderr() -> None:
    """Log to standard error, without what users and models said."""
    handler = logging.StreamHandler()
    handler.addFilter(ContentFilter())  # this process is ours, and so is what libraries log in it
    logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT, handlers=[handler])
    logging.getLogger("openai_runs").setLevel(logging.INFO)


def make_tracing() -> ServerTracing:
    """Return what makes spans, through the SDK that `opentelemetry-instrument` has set up."""
    try:
        from openai_runs.otel import Tracing
    except ConfigError as error:
        sentence = f"--otel: {error}"
        raise Stop(sentence, USAGE) from error
    return Tracing()


async def _serve(server: LocalServer, settings: Settings) -> int:
    try:
        with SIGNALS.cancelling() as starting:
            await server.start()
    except (ConfigError, OSError, UnicodeError) as error:  # Unicode: of a host name
        raise _explained(error, settings) from error
    if starting.cancelled_caught:
        return stopped(SIGNALS.received)
    return await run_until_signal(
        server, lambda: banner(server, settings), lambda: f"listening on {server.url}"
    )


async def run_until_signal(
    started: LocalServer | Worker, describe: Callable[[], list[str]], ready: Callable[[], str]
) -> int:
    """Print what has started, and close it when a signal comes; return the exit code.

    Args:
        started: What is at work.
        describe: Returns its banner.
        ready: Returns the line for standard output.
    """
    try:
        spare_collections()
        _say(describe())
        print(ready(), flush=True)
        async with anyio.create_task_group() as background:
            background.start_soon(_say_reachable, started.backend)
            with SIGNALS.cancelling():
                await anyio.sleep_forever()
            background.cancel_scope.cancel()
        with suppress(OSError):  # the terminal may be gone, which is what SIGHUP says
            _say(["stopping once running work is done; again: at once"])
        with SIGNALS.cancelling(2) as draining:
            await started.drain()
    finally:
        await started.aclose()
    return stopped(SIGNALS.received, finished=not draining.cancelled_caught)


def banner(server: LocalServer, settings: Settings) -> list[str]:
    """Return what somebody who has just started a server wants to know, line by line."""
    if settings.api_key_env is not None:
        key = f"yes, clients must send that of {settings.api_key_env}"
    else:
        key = "no, and only requests to an address of this machine are answered"
    facts = {
        "address": server.url,
        "backend": describe_backend(server.backend),
        "database": place_of(settings.db),
        "key": key,
    }
    if not settings.executes:
        facts["runs"] = "not executed here: openai-runs worker executes them"
    return state_facts(facts)


def state_facts(facts: Mapping[str, str]) -> list[str]:
    """Return the lines of a banner."""
    return [f"openai-runs {VERSION}", *(f"{name:<{_COLUMN}}{fact}" for name, fact in facts.items())]


def describe_backend(backend: Backend) -> str:
    """Return where answers come from."""
    if isinstance(backend, EchoBackend):
        return "echo: no model. Texts are repeated; --model-url URL asks a model"
    return f"chat: {', '.join(getattr(backend, 'endpoint_urls', []))}"


async def _say_reachable(backend: Backend) -> None:
    """Say once of each model endpoint whether it can be reached, or why not."""
    states = await probe_endpoints(backend, MODEL_PROBE_TIMEOUT)
    _say([f"{'model':<{_COLUMN}}{_state_of(state)}" for state in states])


def _state_of(state: EndpointState) -> str:
    """Return whether a model endpoint can be reached, and what it has."""
    if not state.is_reachable:
        return f"{state.url}: not reachable: {state.problem}; is it running?"
    if state.problem:
        return f"{state.url}: reachable, but {state.problem}"
    if not state.models:
        return f"{state.url}: reachable"
    names = ", ".join(state.models[:_SHOWN_MODELS])
    more = ", ..." if len(state.models) > _SHOWN_MODELS else ""
    count = f"{len(state.models)} models" if len(state.models) > 1 else "1 model"
    return f"{state.url}: reachable, {count}: {names}{more}"


def _say(lines: list[str]) -> None:
    with suppress(Closed):  # a server goes on where nobody reads what it says
        for line in lines:
            say(line, dim=False)


def spare_collections() -> None:
    """Collect garbage less often: this process is ours alone, and its requests leave few cycles.

    With Python's own thresholds a seventh of a run's CPU went into it.
    """
    gc.collect()
    gc.freeze()  # modules and classes, which are there for good
    gc.set_threshold(*_GC_THRESHOLDS)


def _explained(error: ConfigError | OSError | UnicodeError, settings: Settings) -> Stop:
    """Return what the user should read when the server did not start."""
    if isinstance(error, ConfigError):
        return Stop(str(error) if is_url(settings.db) else f"{error}; name another file with --db")
    where = f"port {settings.port} of {settings.host}"
    if isinstance(error, UnicodeError):
        return Stop(f"cannot listen on {where}: that is no host name")
    if error.errno == errno.EADDRINUSE:
        return Stop(f"{where} is in use: stop what listens there, or pass --port 0 for a free one")
    reason = error.strerror or type(error).__name__
    return Stop(f"cannot listen on {where} ({reason}): pass another --host or --port")
