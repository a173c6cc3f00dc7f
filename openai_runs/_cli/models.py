"""Where the answers of a server come from: the options of `serve` that say so, and their file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from openai_runs._cli.ending import USAGE, Stop
from openai_runs._cli.environment import secret
from openai_runs.errors import ConfigError
from openai_runs.server import Backend, ChatBackend, EchoBackend, RoutingBackend
from openai_runs.server.backends.routing_file import load_routing

__all__ = ["Models", "choose_backend"]

_ENDPOINT = "endpoint"


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command that are about models."""

    backend: str | None
    config: Path | None
    model_url: str | None
    model_key_env: str | None
    model: str | None
    model_map: tuple[str, ...]
    model_timeout: float | None

    @property
    def given(self) -> list[str]:
        """Return the options for one endpoint that were given."""
        options = {
            "--model-url": self.model_url,
            "--model-key-env": self.model_key_env,
            "--model": self.model,
            "--model-map": self.model_map or None,
            "--model-timeout": self.model_timeout,
        }
        return [name for name, value in options.items() if value is not None]


def choose_backend(models: Models, environ: Mapping[str, str]) -> Backend:
    """Return the backend that the options ask for.

    Raises:
        Stop: They contradict each other, or one of them cannot work.
    """
    key = secret("--model-key-env", models.model_key_env, environ)
    chosen = models.backend or ("chat" if models.model_url or models.config else "echo")
    if chosen == "echo":
        given = [*models.given, *(["--config"] if models.config is not None else [])]
        if given:
            advice = "use --backend chat" if models.backend else "name an endpoint with --model-url"
            sentence = f"{given[0]} is of no use to the echo backend: {advice}"
            raise Stop(sentence, USAGE)
        return EchoBackend()
    if models.config is not None:
        if models.given:
            sentence = f"{models.given[0]} is for one endpoint without a file: use it or --config"
            raise Stop(sentence, USAGE)
        return _from_file(models.config, environ)
    if not models.model_url:
        sentence = (
            "--backend chat needs --model-url, the URL of a chat-completions endpoint up to "
            "/chat/completions, such as http://127.0.0.1:11434/v1, or --config"
        )
        raise Stop(sentence, USAGE)
    return _one_endpoint(models, models.model_url, key)


def _from_file(path: Path, environ: Mapping[str, str]) -> Backend:
    try:
        return load_routing(path, environ)
    except ConfigError as error:
        sentence = f"--config {error}"
        raise Stop(sentence, USAGE) from error


def _one_endpoint(models: Models, url: str, key: str | None) -> Backend:
    options: dict[str, Any] = {"api_key": key}
    if models.model_timeout is not None:
        options["timeout"] = models.model_timeout
    rows = _rows(models)
    try:
        endpoint = ChatBackend(url, **options)
    except (ConfigError, ValueError) as error:
        sentence = f"--model-url: {error}"
        raise Stop(sentence, USAGE) from error
    try:
        return RoutingBackend({_ENDPOINT: endpoint}, rows)
    except ConfigError as error:
        sentence = f"--model-map {error}"
        raise Stop(sentence, USAGE) from error


def _rows(models: Models) -> dict[str, str]:
    """Return which name gets which model: those of the map, then all others."""
    rows: dict[str, str] = {}
    for pair in models.model_map:
        name, equals, model = (part.strip() for part in pair.partition("="))
        if not (name and equals and model):
            sentence = f'--model-map {pair}: write NAME=MODEL, such as "gpt-4o*=qwen3"'
            raise Stop(sentence, USAGE)
        if name in rows:
            sentence = f"--model-map {pair}: {name} has a model already, {rows[name]}"
            raise Stop(sentence, USAGE)
        rows[name] = model
    if models.model is not None:
        if not models.model.strip():
            sentence = "--model is empty: name the model to ask"
            raise Stop(sentence, USAGE)
        rows.setdefault("*", models.model.strip())
    return rows
