"""Which server a command talks to, and what its user reads when that goes wrong."""

import os
import re
import shlex
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread
import msgspec
from msgspec import UNSET, UnsetType

from openai_runs import (
    ActiveRunError,
    APIConnectionError,
    APIError,
    AsyncClient,
    AuthenticationError,
    ConfigError,
    NotFoundError,
    OpenAIRunsError,
    PollPolicy,
    RateLimits,
    StreamInterrupted,
)
from openai_runs._cli.ending import ERROR, TIMED_OUT, USAGE, Stop
from openai_runs._cli.environment import secret
from openai_runs._cli.outputs import say
from openai_runs._cli.tokens import TokenCommand
from openai_runs._protocol.hosts import is_database_url, is_loopback
from openai_runs._protocol.spec import check_id

__all__ = [
    "API_KEY",
    "ECHO",
    "Place",
    "check_ids",
    "check_server",
    "connect",
    "echoes",
    "explained",
    "in_options",
    "reached",
    "shown_db",
]

API_KEY: Final = "OPENAI_API_KEY"
_BASE_URL: Final = "OPENAI_BASE_URL"
ECHO: Final = "echo"
"""The one model that an echo server lists."""
_ARGUMENT: Final = re.compile(r"base_url='([^']*)'")
_ENDPOINT: Final = "base_url of the model endpoint"
_DEFAULT_MODEL: Final = "gpt-4o-mini"
"""Somebody's model has to be named; servers without a choice take any name."""
_LIST_TIMEOUT: Final = 2.0
"""Seconds for a list of models that only a warning needs."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where runs are, as the command was told."""

    base_url: str | None
    api_key_env: str | None
    db: str | None
    """A file, or the URL of a PostgreSQL database."""
    model_url: str | None = None
    model_key_env: str | None = None
    api_version: str | None = None
    """Of Azure AI Foundry; None: another server."""
    token_command: str | None = None

    def url(self, environ: Mapping[str, str]) -> str | None:
        """Return the URL of a server that is there; None: the embedded one is meant."""
        is_embedded = self.db is not None or self.model_url is not None
        found = None if is_embedded else environ.get(_BASE_URL, "").strip()
        return self.base_url or found or None

    def is_lasting(self, environ: Mapping[str, str]) -> bool:
        """Return whether what is made there outlives the command."""
        return self.db is not None or self.url(environ) is not None

    def default_model(self, environ: Mapping[str, str]) -> str:
        """Return the model to ask for where none is named."""
        echoes = self.url(environ) is None and self.model_url is None
        return ECHO if echoes else _DEFAULT_MODEL

    def options(self, *, models: bool = False) -> str:
        """Return the options that lead there again, each with a space before it.

        `models`: those of the model endpoint, too.
        """
        given = {
            "--base-url": self.base_url,
            "--api-key-env": self.api_key_env,
            "--db": None if self.db is None else shown_db(self.db),
        }
        if models:
            given |= {"--model-url": self.model_url, "--model-key-env": self.model_key_env}
        return "".join(f" {name} {shlex.quote(text)}" for name, text in given.items() if text)


def shown_db(db: str) -> str:
    """Return the database as it may be shown: of a URL, neither user nor password."""
    if not is_database_url(db):
        return db
    from openai_runs.server.store import place_of  # needs the extras

    return place_of(db)


def connect(
    place: Place, *, poll: PollPolicy | None = None, limits: RateLimits | None = None
) -> AsyncClient:
    """Return a client of the server that `place` names, embedded or not.

    `limits` are for one that is there.

    Raises:
        Stop: The options contradict each other, or cannot work.
    """
    url = place.url(os.environ)
    _check(place, url)
    key = secret("--api-key-env", place.api_key_env, os.environ)
    try:
        if url is not None:
            return _remote(url, UNSET if key is None else key, poll, limits, place)
        return _embedded(place, key, poll)
    except ValueError as error:  # ConfigError is one
        sentence = in_options(str(error).replace(_ENDPOINT, "--model-url"))
        raise Stop(sentence, USAGE) from error


@asynccontextmanager
async def reached(place: Place, *, at_work: bool, make: bool = False) -> AsyncIterator[AsyncClient]:
    """Yield a client of the server that has the runs.

    Args:
        place: Which server.
        at_work: Whether it must carry them out.
        make: Whether a file that is not there is made.

    Raises:
        Stop: There is no such server, or no such file.
        ConfigError: The database at a URL cannot be used.
    """
    if place.db is None:
        async with connect(place) as client:
            yield client
        return
    if is_database_url(place.db):
        await _check_shared(place.db, at_work=at_work, make=make)
        async with _idle(place.db, executes=False) as client:
            yield client
        return
    from openai_runs.server import serving_url  # loads the database's room

    if not make and not await anyio.to_thread.run_sync(Path(place.db).is_file):
        sentence = f"there is no database '{place.db}': name another file with --db"
        raise Stop(sentence)
    url = await anyio.to_thread.run_sync(serving_url, place.db)
    if url is not None:
        served = msgspec.structs.replace(place, base_url=url, db=None)
        async with connect(served) as client:
            yield client
    elif at_work:
        sentence = (
            f"no server works on the runs of '{place.db}': start one with "
            f"`openai-runs serve --db {place.db}`, or look with `openai-runs runs show`"
        )
        raise Stop(sentence)
    else:
        # Who only looks must not have runs carried out that wait for a server with a model.
        async with _idle(place.db, max_concurrent_runs=0) as client:
            yield client


@asynccontextmanager
async def _idle(db: str, **options: Any) -> AsyncIterator[AsyncClient]:
    """Yield a client of a server that executes nothing."""
    from openai_runs.server import LocalServer

    async with (
        LocalServer(db, **options) as server,
        AsyncClient(server.url, api_key=None) as client,
    ):
        yield client


async def _check_shared(db: str, *, at_work: bool, make: bool) -> None:
    """Refuse a database that a server of ours has not made, or that none is at work on.

    Raises:
        Stop: It is such a one.
        ConfigError: It cannot be used.
    """
    from openai_runs.server.store import inspect_database

    report = await anyio.to_thread.run_sync(inspect_database, db)
    sentence = ""
    if not report.version and not make:
        sentence = (
            f"database {report.place} has no tables of this package: name another one with --db; "
            "`openai-runs serve` makes them"
        )
    elif at_work and not report.workers:
        sentence = (
            f"no process executes the runs of {report.place}: start one with `openai-runs worker "
            f"--db {report.place}`, or look with `openai-runs runs show`"
        )
    if sentence:
        raise Stop(sentence)


async def echoes(client: AsyncClient) -> bool:
    """Return whether the server repeats texts and has no model; False where it does not say."""
    once = client.with_options(max_retries=0)
    try:
        listed = await once.request("GET", "/models", timeout=_LIST_TIMEOUT)
    except OpenAIRunsError:
        return False  # the next request says what is wrong
    models = listed.get("data")
    names = [one.get("id") for one in models] if isinstance(models, list) else []
    return names == [ECHO]


def check_ids(**ids: str | None) -> None:
    """Refuse what can be no id, before anything is sent.

    Raises:
        Stop: It could lead elsewhere.
    """
    for name, value in ids.items():
        if value is not None:
            try:
                check_id(name, value)
            except ValueError as error:
                raise Stop(str(error), USAGE) from error


def check_server(place: Place) -> None:
    """Refuse a command about what is there without a place where it could be.

    Raises:
        Stop: No server is named, and no file.
    """
    if place.db is None and place.url(os.environ) is None:
        sentence = (
            "which server is meant? Set OPENAI_BASE_URL or pass --base-url, or --db for the "
            "file of a server of this package. OpenAI switched its own Assistants endpoints off "
            "on 2026-08-26, so there is no default"
        )
        raise Stop(sentence, USAGE)


def explained(error: OpenAIRunsError, place: Place, *, timed: bool = False) -> Stop:
    """Return what the user should read; `timed` if the command was given a time-out."""
    said, advice = str(error), ""
    if isinstance(error, APIError) and error.advice:
        said, advice = said.removesuffix(f"; {error.advice}"), in_options(error.advice)
    if isinstance(error, ActiveRunError) and error.blocking_run_id and error.thread_id:
        advice = f"wait for it: {_command('wait', error.blocking_run_id, error.thread_id, place)}"
    elif isinstance(error, ConfigError) and place.db and not is_database_url(place.db):
        advice = "name another file with --db"
    elif isinstance(error, AuthenticationError):
        advice = _about_key(place)
    elif isinstance(error, NotFoundError) and not advice:
        advice = "look at the ids, and at the address of the server"
    elif isinstance(error, StreamInterrupted) and error.run_id and error.thread_id:
        advice = f"once it is back: {_command('show', error.run_id, error.thread_id, place)}"
    elif isinstance(error, APIConnectionError) and place.base_url is None and place.url(os.environ):
        advice = f"{advice or 'is a server running there?'} (the address is from {_BASE_URL})"
    is_late = timed and isinstance(error, TimeoutError)
    return Stop("; ".join(filter(None, [said, advice])), TIMED_OUT if is_late else ERROR)


def _about_key(place: Place) -> str:
    """Return what to do about a key that was refused, or was not there."""
    if place.token_command is not None:
        return "is what --token-command prints a token for this server?"
    name = place.api_key_env or (API_KEY if os.environ.get(API_KEY, "").strip() else None)
    if name is None:
        return f"name the variable that holds your key with --api-key-env, or set {API_KEY}"
    return f"is the key in {name} one of this server? --api-key-env names another variable"


def in_options(advice: str) -> str:
    """Return the advice of an error with the options of the command in place of arguments.

    >>> in_options("is the path /v1 missing? Try base_url='http://127.0.0.1:8080/v1'")
    'is the path /v1 missing? Try --base-url http://127.0.0.1:8080/v1'
    """
    advice = _ARGUMENT.sub(r"--base-url \1", advice)
    return advice.replace("base_url", "--base-url")


def _command(name: str, run_id: str, thread_id: str, place: Place) -> str:
    return f"openai-runs runs {name} {run_id} --thread {thread_id}{place.options()}"


def _check(place: Place, url: str | None) -> None:
    sentence = ""
    if place.base_url is not None and (place.db is not None or place.model_url is not None):
        given = "--db" if place.db is not None else "--model-url"
        sentence = f"{given} is for the embedded server, --base-url for one that is there: use one"
    elif is_database_url(place.db):
        sentence = (
            "--db: a server on a PostgreSQL database executes the runs of all its clients, so this "
            "command starts none: start `openai-runs serve --db postgresql://...` and name its "
            "address with --base-url"
        )
    elif place.model_key_env is not None and place.model_url is None:
        sentence = "--model-key-env is the key of the endpoint that --model-url names: add that"
    elif place.api_key_env is not None and url is None and place.db is None:
        sentence = "--api-key-env is the key of a server that is there: add --base-url"
    if sentence:
        raise Stop(sentence, USAGE)


def _remote(
    url: str,
    key: str | UnsetType,
    poll: PollPolicy | None,
    limits: RateLimits | None,
    place: Place,
) -> AsyncClient:
    credential: str | TokenCommand | UnsetType = key
    if place.token_command is not None:
        credential = TokenCommand(place.token_command)
    is_here = is_loopback(urlsplit(url).hostname or "")  # which no proxy can reach
    options: dict[str, Any] = {"poll": poll, "limits": limits, "trust_env": not is_here}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if place.api_version is not None:
            if isinstance(credential, UnsetType):
                sentence = "--api-version is for Azure: add --token-command or --api-key-env"
                raise Stop(sentence, USAGE)
            client = AsyncClient.azure(url, credential, place.api_version, **options)
        else:
            client = AsyncClient(url, credential, **options)
    for warning in caught:
        say(f"openai-runs: {warning.message}")
    return client


def _embedded(place: Place, key: str | None, poll: PollPolicy | None) -> AsyncClient:
    backend = None
    model_key = secret("--model-key-env", place.model_key_env, os.environ)
    if place.model_url is not None:
        from openai_runs.server import ChatBackend  # only here, as it loads the database's room

        backend = ChatBackend(place.model_url, api_key=model_key)
    return AsyncClient.local(place.db, backend=backend, api_key=key, poll=poll)
