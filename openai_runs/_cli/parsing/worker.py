"""Arguments and help of `openai-runs worker`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from openai_runs._cli.parsing.kinds import Seconds

__all__ = ["worker"]


def worker(
    *,
    db: str,
    model_url: str | None = None,
    model_key_env: str | None = None,
    model: str | None = None,
    model_map: Annotated[list[str] | None, Parameter(negative="")] = None,
    model_timeout: Seconds = None,
    config: Path | None = None,
    backend: Literal["echo", "chat"] | None = None,
    otel: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Execute the runs that servers on PostgreSQL take in.

    Prints "executing runs" once it is at work. Any number of workers, on any number of machines,
    share the work; the runs of one that is killed are taken over within 20 seconds.
    SIGTERM, SIGHUP and Ctrl-C let running work finish first; a second one stops at once.

        openai-runs serve --db postgresql://db.example/runs --no-execute
        openai-runs worker --db postgresql://db.example/runs --config models.toml

    Args:
        db: PostgreSQL database: postgresql://HOST/NAME
        model_url: Chat-completions endpoint that answers: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        model: Model to ask there, whatever a run names.
        model_map: NAME=MODEL: a run that names NAME, which may hold *, gets MODEL; repeatable.
        model_timeout: Seconds the endpoint may be silent; else its first word is waited for as
            long as the run lives, 600 s, and each further one for 60 s.
        config: TOML file with endpoints and models, in place of the five options before.
        backend: Where answers come from; chat with --model-url or --config, else echo.
        otel: Make spans of OpenTelemetry, through the SDK that opentelemetry-instrument sets up.
    """
    from openai_runs._cli.commands.worker import Settings, perform
    from openai_runs._cli.models import Models

    return perform(
        Settings(
            db=db,
            models=Models(
                backend=backend,
                config=config,
                model_url=model_url,
                model_key_env=model_key_env,
                model=model,
                model_map=tuple(model_map or ()),
                model_timeout=model_timeout,
            ),
            otel=otel,
        )
    )
