"""The commands with their arguments and help. Each one's work is in a module of its own.

What may not live here: an import of the client or the server; `--help` must be quick.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from openai_runs import __version__
from openai_runs._cli.ending import INTERRUPTED, USAGE, Stop

__all__ = ["run"]

_HELP: Final = """\
Runs of the OpenAI Assistants wire: start, wait, answer tools, read steps.

Try it, without a key or a network:

    openai-runs demo

Serve it, then point any client of this protocol at http://127.0.0.1:8080/v1:

    openai-runs serve
    openai-runs serve --model-url http://127.0.0.1:11434/v1
"""

_EPILOGUE: Final = """\
Exit codes:
    0  completed                     5  the run was cancelled
    1  error                         6  the wait timed out
    2  wrong usage                 130  Ctrl-C
    3  the run requires action     143  SIGTERM, before the work was done
    4  the run failed, is incomplete or expired
"""

_app: Final = App(
    name="openai-runs",
    help=_HELP,
    help_epilogue=_EPILOGUE,
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@_app.command
def demo() -> int:
    """Watch a run from a tool call to the answer.

    A server on a temporary file plays a support assistant with a scripted model.
    It is asked over real HTTP, has a Python function called, and answers.
    Takes a few seconds and leaves nothing behind.
    """
    from openai_runs._cli.demo import perform

    return perform()


@_app.command
def serve(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8080,
    db: Path = Path("runs.db"),
    model_url: str | None = None,
    model_key_env: str | None = None,
    api_key_env: str | None = None,
    backend: Literal["echo", "chat"] | None = None,
) -> int:
    """Serve the protocol under /v1.

    Prints "listening on http://HOST:PORT/v1" once it accepts connections.
    SIGTERM and Ctrl-C let running work finish first; a second one stops at once.
    Exits with 0 after SIGTERM, or with 143 if a second signal cut the work short.

    The echo backend repeats the last user message; when that says
    "Use the tool NAME for X." it calls the function NAME with X.

    Args:
        host: Address to listen on; another one than loopback needs --api-key-env.
        port: Port to listen on; 0 takes any free one.
        db: SQLite file, made if it is not there; one server per file.
        model_url: Chat-completions endpoint that answers: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        api_key_env: Environment variable that holds the key clients must send; without
            one, only requests to localhost or a loopback address are answered.
        backend: Where answers come from; chat with --model-url, else echo.
    """
    from openai_runs._cli.serve import Settings, perform

    return perform(
        Settings(
            host=host,
            port=port,
            db=db,
            model_url=model_url,
            model_key_env=model_key_env,
            api_key_env=api_key_env,
            backend=backend,
        )
    )


def run(arguments: Sequence[str]) -> int:
    """Carry out the command line `arguments`; return the exit code."""
    try:
        code = _app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()), USAGE)
    except Stop as stop:
        return _complain(str(stop), stop.code)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _complain(sentence: str, code: int) -> int:
    print(f"openai-runs: {sentence}", file=sys.stderr)
    if code == USAGE:
        print("Try: openai-runs --help", file=sys.stderr)
    return code
