"""`openai-runs doctor`: what a setup is made of, and whether it works."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from openai_runs._cli.connecting import API_KEY, Place, in_options
from openai_runs._cli.ending import ERROR, USAGE, Stop
from openai_runs._cli.environment import secret
from openai_runs._cli.interrupting import carry_out
from openai_runs._cli.outputs import print_json, print_text, printable
from openai_runs._diagnosis.api import check_api
from openai_runs._diagnosis.database import check_database
from openai_runs._diagnosis.finding import Finding
from openai_runs._diagnosis.installed import check_environment, check_installed
from openai_runs._diagnosis.models import check_models
from openai_runs.config import from_env
from openai_runs.errors import ConfigError

__all__ = ["Examination", "examine"]

_STYLES: Final = {"ok": "", "warn": "bold", "fail": "bold red"}
_STATE, _TOPIC = 6, 18
"""Columns of the two words before the text."""
_WIDTH: Final = 80
"""Columns where there is no terminal."""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be checked besides what is installed."""

    place: Place
    """The server, the file, and the one model endpoint."""
    model: str | None
    config: Path | None
    json: bool


def examine(examination: Examination) -> int:
    """Print what was found; return 1 if something does not work.

    Raises:
        Stop: The arguments contradict each other.
        Closed: Nobody reads it.
    """
    place = examination.place
    _check(examination)
    key = secret("--api-key-env", place.api_key_env, os.environ) or from_env(os.environ).api_key

    found = [*check_installed(), check_environment(os.environ)]
    endpoints, models = _endpoints(examination)

    async def work() -> int:
        nonlocal found
        if place.db is not None:
            found += await check_database(place.db)
        try:
            found += await check_models(endpoints, models)
        finally:
            for endpoint in endpoints.values():
                await endpoint.aclose()
        url = place.base_url or from_env(os.environ).base_url
        if url is not None:
            found += await _api(url, key, place.api_key_env)
        return _print(found, as_json=examination.json)

    return carry_out(work)


async def _api(url: str, key: str | None, key_name: str | None) -> list[Finding]:
    try:
        found = await check_api(url, key, key_name or API_KEY)
        return [msgspec.structs.replace(one, advice=in_options(one.advice)) for one in found]
    except ConfigError as error:
        return [Finding(topic="server", state="fail", text=str(error))]


def _check(examination: Examination) -> None:
    place = examination.place
    sentence = ""
    if examination.config is not None and place.model_url is not None:
        sentence = "--model-url is for one endpoint without a file: use it or --config"
    elif place.model_key_env is not None and place.model_url is None:
        sentence = "--model-key-env is the key of the endpoint that --model-url names: add that"
    elif examination.model is not None and place.model_url is None:
        sentence = "--model is a model of the endpoint that --model-url names: add that"
    if sentence:
        raise Stop(sentence, USAGE)


def _endpoints(examination: Examination) -> tuple[Mapping[str, Any], Mapping[str, str | None]]:
    """Return the model endpoints that were named, and a model of each, where one is named."""
    place = examination.place
    if place.model_url is None and examination.config is None:
        return {}, {}
    from openai_runs._cli.models import Models, choose_backend  # needs the extra `server`
    from openai_runs.server import RoutingBackend

    options = Models(
        backend=None,
        config=examination.config,
        model_url=place.model_url,
        model_key_env=place.model_key_env,
        model=examination.model,
        model_map=(),
        model_timeout=None,
    )
    backend = choose_backend(options, os.environ)
    assert isinstance(backend, RoutingBackend)  # a file or a URL was given
    return backend.endpoints, backend.some_models()


def _print(found: list[Finding], *, as_json: bool) -> int:
    works = all(one.state != "fail" for one in found)
    if as_json:
        print_json({"works": works, "findings": found})
    else:
        print_text(_drawn(found))
    return 0 if works else ERROR


def _drawn(found: list[Finding]) -> str:
    """Return a line for each, with what to do next below those that need it."""
    console = Console(markup=False, emoji=False, highlight=False)
    width = console.width if console.is_terminal else _WIDTH
    left = max(width - _STATE - _TOPIC, 20)
    with console.capture() as captured:
        for one in found:
            texts = [printable(one.text)]
            if one.advice and one.state != "ok":
                texts.append(f"-> {printable(one.advice)}")
            head = Text.assemble(
                (f"{one.state:<{_STATE}}", _STYLES[one.state]), f"{one.topic:<{_TOPIC}}"
            )
            for text in texts:
                for line in Text(text, overflow="fold").wrap(console, left):
                    console.print(Text.assemble(head, line.plain.rstrip()), soft_wrap=True)
                    head = Text(" " * (_STATE + _TOPIC))
    return captured.get().removesuffix("\n")
