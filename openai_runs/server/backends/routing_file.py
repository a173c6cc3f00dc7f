"""The operator's file: endpoints, and which models go to them. TOML; each error names its place.

    [endpoints.local]
    url = "http://127.0.0.1:11434/v1"
    first_token_timeout = 300
    think = "strip"

    [endpoints.deepseek]
    url = "https://api.deepseek.com"
    key_env = "DEEPSEEK_API_KEY"

    [models]
    "deepseek-*" = { endpoint = "deepseek" }
    "qwen3" = { endpoint = "local" }
    "gpt-4o*" = "qwen3"

Keys of endpoints stand in the environment, and nowhere in the file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from openai_runs.config import check_timeout
from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import Backend
from openai_runs.server.backends.chat.backend import ChatBackend, problem_of_url
from openai_runs.server.backends.routing import Route, RoutingBackend

__all__ = ["load_routing"]

T = TypeVar("T")

_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`\Z")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TIMEOUTS: Final = frozenset({"timeout", "first_token_timeout", "idle_timeout"})
_SECRETS: Final = frozenset({"key", "api_key", "apikey", "token", "password", "secret"})
"""Keys under which somebody may write what belongs into the environment."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class _Endpoint(_Table, frozen=True, kw_only=True):
    """`[endpoints.NAME]`; all but the first two are arguments of `ChatBackend`."""

    url: str
    key_env: str | UnsetType = UNSET
    timeout: float | UnsetType = UNSET
    first_token_timeout: float | UnsetType = UNSET
    idle_timeout: float | UnsetType = UNSET
    think: str | UnsetType = UNSET
    forms: dict[str, Any] | UnsetType = UNSET
    echo: dict[str, Any] | UnsetType = UNSET


class _Row(_Table, frozen=True, kw_only=True):
    """What a name in `[models]` goes to, where that is no other name."""

    endpoint: str
    model: str | UnsetType = UNSET


class _File(_Table, frozen=True, kw_only=True):
    endpoints: dict[str, Any]
    models: dict[str, Any] | UnsetType = UNSET


def load_routing(
    path: str | Path,
    environ: Mapping[str, str],
    make: Callable[..., Backend] = ChatBackend,
) -> RoutingBackend:
    """Return the backend that the file describes.

    Args:
        path: The file.
        environ: Where the keys are, such as `os.environ`.
        make: Makes the backend of an endpoint, as `ChatBackend` does.

    Raises:
        ConfigError: The file cannot be read, or says what cannot be done; the text names the
            file, the table and the key, and no secret.
    """
    try:
        file = _table("the file", _parse(Path(path)), _File)
        endpoints = {
            name: _endpoint(f"[endpoints.{_quoted(name)}]", table, environ, make)
            for name, table in file.endpoints.items()
        }
        if not endpoints:
            message = '[endpoints] is empty: add a table such as [endpoints.local] with its "url"'
            raise ConfigError(message)
        models = file.models if isinstance(file.models, dict) else {}
        rows = {name: _row(name, value) for name, value in models.items()}
        try:
            return RoutingBackend(endpoints, rows)
        except ConfigError as error:
            message = f"[models] {error}"
            raise ConfigError(message) from error
    except ConfigError as error:
        message = f"{path}: {error}"
        raise ConfigError(message) from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        message = f"cannot be read ({error.strerror or type(error).__name__})"
        raise ConfigError(message) from error
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    message = f"is no TOML: {problem}"
    raise ConfigError(message)


def _endpoint(
    table: str, value: Any, environ: Mapping[str, str], make: Callable[..., Backend]
) -> Backend:
    read = _table(table, value, _Endpoint)
    given = {
        name: value
        for name in _Endpoint.__struct_fields__
        if name not in {"url", "key_env"} and (value := getattr(read, name)) is not UNSET
    }
    if not isinstance(read.key_env, UnsetType):
        given["api_key"] = _key(table, read.key_env, environ)
    try:
        _check_url(read.url)
        for name in _TIMEOUTS & given.keys():
            check_timeout(name, given[name])
        return make(read.url, **given)
    except (TypeError, ValueError) as error:  # ConfigError is one
        message = f"{table} {error}"
        raise ConfigError(message) from error


def _check_url(url: str) -> None:
    parts = urlsplit(url)  # a ValueError of its own for an unfinished address
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = 'url must begin with http:// or https://, such as "http://127.0.0.1:11434/v1"'
        raise ConfigError(message)
    if problem := problem_of_url(url):
        message = f"url {problem}"
        raise ConfigError(message)


def _key(table: str, name: str, environ: Mapping[str, str]) -> str:
    if _VARIABLE.match(name) is None:  # it may be the key itself, which is not repeated
        message = (
            f"{table} key_env is the name of an environment variable, of letters, digits and "
            'underscores, such as "MODEL_KEY", and not the key itself'
        )
        raise ConfigError(message)
    value = environ.get(name, "").strip()
    if not value:
        message = f"{table} key_env: the environment variable {name} is not set or empty"
        raise ConfigError(message)
    return value


def _row(name: str, value: Any) -> str | Route:
    where = f"[models] {_quoted(name)}"
    if not name:
        message = f"{where}: a model has a name"
        raise ConfigError(message)
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        message = f'{where} goes to the name of a model, or to {{ endpoint = "..." }}'
        raise ConfigError(message)
    part = next(iter(value), "")
    if part[:1].isdigit():  # such as gpt-3.5, which TOML reads as a table in a table
        message = (
            f"{where} has an unknown key {part!r}; a name with a dot stands in quotes, such as "
            f'"{name}.{part}"'
        )
        raise ConfigError(message)
    row = _table(where, value, _Row)
    if isinstance(row.model, UnsetType):
        return Route(row.endpoint)
    if not row.model or "*" in row.model:
        message = f"{where} model: {row.model!r} is the name of no model"
        raise ConfigError(message)
    return Route(row.endpoint, row.model)


def _table(where: str, value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_misfit(where, str(error), kind)) from None


def _misfit(where: str, problem: str, kind: type[Any]) -> str:
    """Return what is wrong in a table, with the key and what may stand there."""
    names = list(kind.__struct_fields__)
    if unknown := _UNKNOWN.match(problem):
        name = unknown[1]
        if kind is _Endpoint and name.lower() in _SECRETS:
            return (
                f"{where} has {name!r}: keys do not stand in the file; put it into an environment "
                'variable and write its name, such as key_env = "MODEL_KEY"'
            )
        close = difflib.get_close_matches(name, names, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}"
        return f"{where} has an unknown key {name!r}; {advice}"
    if missing := _MISSING.match(problem):
        return f"{where} has no {missing[1]!r}"
    at = _AT.search(problem)
    found = problem[: at.start()] if at else problem
    key = f" {at['path']}" if at and at["path"] else ""
    return f"{where}{key}: {found[:1].lower()}{found[1:]}"


def _quoted(name: str) -> str:
    """Return the key as it stands in the file.

    >>> _quoted("local"), _quoted("gpt-4o*")
    ('local', '"gpt-4o*"')
    """
    return name if _BARE.match(name) else f'"{name}"'
