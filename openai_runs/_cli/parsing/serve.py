"""Arguments and help of `openai-runs serve`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from openai_runs._cli.parsing.kinds import Seconds, Switch
from openai_runs.config import RUN_LIFETIME, SERVE_PORT

__all__ = ["serve"]


def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = SERVE_PORT,
    db: str = "runs.db",
    execute: bool = True,
    model_url: str | None = None,
    model_key_env: str | None = None,
    model: str | None = None,
    model_map: Annotated[list[str] | None, Parameter(negative="")] = None,
    model_timeout: Seconds = None,
    config: Path | None = None,
    api_key_env: str | None = None,
    backend: Literal["echo", "chat"] | None = None,
    hosted_tools: Literal["error", "ignore"] = "error",
    run_lifetime: int = RUN_LIFETIME,
    otel: Switch = False,
) -> int:
    """Serve the protocol under /v1.

    Prints "listening on http://HOST:PORT/v1" once it accepts connections.
    SIGTERM, SIGHUP and Ctrl-C let running work finish first; a second one stops at once.
    Exits with 0 after SIGTERM, or with 143 if a second signal cut the work short.

    The echo backend repeats the last user message; when that says
    "Use the tool NAME for X." it calls the function NAME with X.

        openai-runs serve --model-url http://127.0.0.1:11434/v1 --model qwen3
        openai-runs serve --config models.toml

    A file names several endpoints, and which models go where:

        [endpoints.local]
        url = "http://127.0.0.1:11434/v1"

        [endpoints.deepseek]
        url = "https://api.deepseek.com"
        key_env = "DEEPSEEK_API_KEY"

        [models]
        "deepseek-*" = { endpoint = "deepseek" }
        "qwen3" = { endpoint = "local" }
        "gpt-4o*" = "qwen3"

    Args:
        host: Address to listen on; another one than loopback needs --api-key-env.
        port: Port to listen on; 0 takes any free one.
        db: SQLite file, made if it is not there; one server per file. Or a PostgreSQL database,
            which any number of servers and workers share: postgresql://HOST/NAME
        execute: Whether this server executes runs itself; with --no-execute, workers on the same
            PostgreSQL database do: openai-runs worker
        model_url: Chat-completions endpoint that answers: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        model: Model to ask there, whatever a run names.
        model_map: NAME=MODEL: a run that names NAME, which may hold *, gets MODEL; repeatable.
        model_timeout: Seconds the endpoint may be silent; else its first word is waited for as
            long as the run lives, 600 s, and each further one for 60 s.
        config: TOML file with endpoints and models, in place of the five options before.
        api_key_env: Environment variable that holds the key clients must send; without
            one, only requests to localhost or a loopback address are answered.
        backend: Where answers come from; chat with --model-url or --config, else echo.
        hosted_tools: What becomes of a run with code_interpreter or file_search, which this
            server does not have: it is refused, or they are left out of what the model gets.
        run_lifetime: Seconds from a run's creation until it expires, whatever its model is doing.
        otel: Make spans of OpenTelemetry, through the SDK that opentelemetry-instrument sets up.
    """
    from openai_runs._cli.commands.serve import Settings, perform
    from openai_runs._cli.models import Models

    return perform(
        Settings(
            host=host,
            port=port,
            db=db,
            executes=execute,
            models=Models(
                backend=backend,
                config=config,
                model_url=model_url,
                model_key_env=model_key_env,
                model=model,
                model_map=tuple(model_map or ()),
                model_timeout=model_timeout,
            ),
            api_key_env=api_key_env,
            hosted_tools=hosted_tools,
            run_lifetime=run_lifetime,
            otel=otel,
        )
    )
