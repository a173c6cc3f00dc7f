"""The commands with their arguments and help. Each one's work is in a module of its own.

What may not live here: an import of the client or the server; `--help` must be quick.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from openai_runs import __version__
from openai_runs._cli.ending import CLOSED, ERROR, INTERRUPTED, USAGE, Closed, Stop
from openai_runs.config import BATCH_CONCURRENCY, RUN_LIFETIME, SERVE_PORT

if TYPE_CHECKING:
    from openai_runs._cli.runs import Target

__all__ = ["run"]

_HELP: Final = """\
Runs of the OpenAI Assistants wire: start, wait, answer tools, read steps.

Try it, without a key or a network:

    openai-runs demo
    openai-runs ask "Hello!"

Ask a model of yours, or a server that is there:

    openai-runs ask "Hello!" --model-url http://127.0.0.1:11434/v1 --model phi4
    openai-runs ask "Hello!" --base-url http://127.0.0.1:8080/v1

Serve it, then point any client of this protocol at http://127.0.0.1:8080/v1:

    openai-runs serve
    openai-runs serve --model-url http://127.0.0.1:11434/v1
    openai-runs serve --config models.toml

Leave another server with all threads, and keep their ids:

    openai-runs export --out archive --base-url URL
    openai-runs import archive --db runs.db
"""

_EPILOGUE: Final = """\
Exit codes:
    0  completed                     5  the run was cancelled
    1  error                         6  the wait timed out
    2  wrong usage                 130  Ctrl-C
    3  the run requires action     141  nobody reads the output any more
    4  the run failed, is          143  SIGTERM, before the work was done
       incomplete or expired
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
_runs: Final = App(name="runs", help="Look at a run, or wait for it, from its two ids.")
_app.command(_runs)
_batch: Final = App(name="batch", help="Carry out many runs from a file, and go on after a crash.")
_app.command(_batch)

_Seconds = Annotated[float | None, Parameter(validator=Number(gt=0))]
_Count = Annotated[int, Parameter(validator=Number(gte=1))]
_Limit = Annotated[int | None, Parameter(validator=Number(gte=1))]
_Switch = Annotated[bool, Parameter(negative="", show_default=False)]


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
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = SERVE_PORT,
    db: Path = Path("runs.db"),
    model_url: str | None = None,
    model_key_env: str | None = None,
    model: str | None = None,
    model_map: Annotated[list[str] | None, Parameter(negative="")] = None,
    model_timeout: _Seconds = None,
    config: Path | None = None,
    api_key_env: str | None = None,
    backend: Literal["echo", "chat"] | None = None,
    hosted_tools: Literal["error", "ignore"] = "error",
    run_lifetime: int = RUN_LIFETIME,
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
        db: SQLite file, made if it is not there; one server per file.
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
            server does not have: it is refused, or they are left out of what the model is told.
        run_lifetime: Seconds from a run's creation until it expires, whatever its model is doing.
    """
    from openai_runs._cli.models import Models
    from openai_runs._cli.serve import Settings, perform

    return perform(
        Settings(
            host=host,
            port=port,
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
            api_key_env=api_key_env,
            hosted_tools=hosted_tools,
            run_lifetime=run_lifetime,
        )
    )


@_app.command(usage="Usage: openai-runs ask [OPTIONS] TEXT")
def ask(
    text: Annotated[str | None, Parameter(name="TEXT")] = None,
    /,
    *,
    stdin: Annotated[bool, Parameter(name="-", negative="", show_default=False)] = False,
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    db: Path | None = None,
    model: str | None = None,
    instructions: str | None = None,
    thread: str | None = None,
    assistant: str | None = None,
    timeout: _Seconds = None,
    json: _Switch = False,
) -> int:
    """Ask, and read the answer as it is written.

    The answer goes to standard output; ids, status and tokens to standard error.
    Without a server to ask, one is started inside this command, which repeats
    the text, or asks the model at --model-url.

        openai-runs ask "Hello!"
        openai-runs ask "Hello!" --model-url http://127.0.0.1:11434/v1 --model phi4
        git diff | openai-runs ask - --instructions "Review this change."
        openai-runs ask "And then?" --thread thread_... --db chat.db

    Exits with the code of the run's status. Whatever ends the command early, such
    as Ctrl-C or --timeout, has the server cancel the run.

    Args:
        text: What to ask; without it, standard input is read if it is no terminal.
        stdin: Read TEXT from standard input.
        base_url: Server to ask, up to /v1; else OPENAI_BASE_URL, if that is set.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        model_url: Chat-completions endpoint to ask instead: its URL before /chat/completions.
        model_key_env: Environment variable that holds the key of that endpoint.
        db: SQLite file to keep the thread in; where a server has it open, that is asked.
        model: Model to ask; else gpt-4o-mini, or echo where the text is repeated.
        instructions: What the model is told before.
        thread: Go on with this thread of the server or the file.
        assistant: Ask this assistant; else one is made, and removed afterwards.
        timeout: Seconds after which the answer is given up.
        json: Print one line of JSON at the end in place of the text.
    """
    from openai_runs._cli.ask import Question, perform
    from openai_runs._cli.connecting import Place

    return perform(
        Question(
            text=text,
            stdin=stdin,
            thread=thread,
            assistant=assistant,
            model=model,
            instructions=instructions,
            timeout=timeout,
            json=json,
            place=Place(
                base_url=base_url,
                api_key_env=api_key_env,
                db=db,
                model_url=model_url,
                model_key_env=model_key_env,
            ),
        )
    )


@_runs.command
def show(
    run_id: str,
    /,
    *,
    thread: str,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: Path | None = None,
    json: _Switch = False,
) -> int:
    """Show a run with its steps and the messages it wrote.

    Exits with 0 if it could be shown, whatever its status is.

        openai-runs runs show run_... --thread thread_...
        openai-runs runs show run_... --thread thread_... --json | jq .run.status

    Args:
        run_id: The run's id.
        thread: Id of its thread.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Look into this file of a server of this package instead.
        json: Print one line of JSON: run, steps, messages, as they are on the wire.
    """
    from openai_runs._cli import runs

    target = _target(run_id, thread=thread, base_url=base_url, api_key_env=api_key_env, db=db)
    return runs.show(target, as_json=json)


@_runs.command
def wait(
    run_id: str,
    /,
    *,
    thread: str,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: Path | None = None,
    timeout: _Seconds = None,
    json: _Switch = False,
) -> int:
    """Wait until a run is settled, and exit with the code of its status.

    The run itself is left alone: neither Ctrl-C nor --timeout cancels it.

        openai-runs runs wait run_... --thread thread_... --timeout 60 && echo done

    Args:
        run_id: The run's id.
        thread: Id of its thread.
        base_url: Server that has it, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Ask the server that has this file open instead.
        timeout: Seconds to wait at most; else what the run has left.
        json: Print the run as one line of JSON, as it is on the wire.
    """
    from openai_runs._cli import runs

    target = _target(run_id, thread=thread, base_url=base_url, api_key_env=api_key_env, db=db)
    return runs.wait(target, timeout=timeout, as_json=json)


@_app.command
def export(
    *,
    out: Path,
    base_url: str | None = None,
    api_key_env: str | None = None,
    token_command: str | None = None,
    api_version: str | None = None,
    db: Path | None = None,
    thread: Annotated[list[str] | None, Parameter(negative="")] = None,
    threads_file: Path | None = None,
    form: Annotated[Literal["responses"] | None, Parameter(name="--as")] = None,
) -> int:
    """Write all threads of a server into a folder, as they are.

    Assistants, threads, messages, runs and steps, as JSON lines: what a server
    of this protocol has, and nothing else has taken out of it. The same command
    goes on where it was cut short, and brings an older export up to date.

        openai-runs export --out archive --base-url http://127.0.0.1:8080/v1
        openai-runs export --out archive --db runs.db

    Exits with 1 if a thread could not be exported; the command tries it again.

    Args:
        out: Folder, made if it is not there.
        base_url: Server to export from, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        token_command: Command that prints a bearer token; asked again as tokens expire.
        api_version: The server is Azure AI Foundry (classic), and wants this: v1.
        db: Export from this file of a server of this package.
        thread: Export this thread only; repeatable. Needed where the server lists none.
        threads_file: File with the id of a thread on each line.
        form: responses: write each thread as input items of the Responses API, too.
    """
    from openai_runs._cli.archive import Export, perform_export
    from openai_runs._cli.connecting import Place

    place = Place(
        base_url=base_url,
        api_key_env=api_key_env,
        db=db,
        api_version=api_version,
        token_command=token_command,
    )
    threads = tuple(thread or ())
    return perform_export(
        Export(out=out, threads=threads, threads_file=threads_file, form=form, place=place)
    )


@_app.command(name="import")
def import_archive(
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    db: Path | None = None,
    dry_run: _Switch = False,
) -> int:
    """Give a server of this package all threads of an export.

    Ids, order and times stay as they were. What is there already is passed over,
    so a second time does no harm; what is there with other content is a conflict,
    and stays as it is.

        openai-runs import archive --base-url http://127.0.0.1:8080/v1 --dry-run
        openai-runs import archive --db runs.db

    Exits with 1 if anything was left out; the list says what, and why.

    Args:
        folder: Folder of an export, or of files with a thread each.
        base_url: Server to import into, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        db: Import into this file of a server of this package.
        dry_run: Check everything, and write nothing.
    """
    from openai_runs._cli.archive import Import, perform_import
    from openai_runs._cli.connecting import Place

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return perform_import(Import(folder=folder, dry_run=dry_run, place=place))


@_batch.command(name="run")
def batch_run(
    source: Annotated[Path, Parameter(name="IN")],
    /,
    *,
    out: Path,
    checkpoint: Path,
    errors: Path | None = None,
    template: Path | None = None,
    tools: Annotated[list[str] | None, Parameter(negative="")] = None,
    concurrency: _Count = BATCH_CONCURRENCY,
    rpm: _Limit = None,
    retry_failed: _Switch = False,
    max_failures: _Limit = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    model_url: str | None = None,
    model_key_env: str | None = None,
    db: Path | None = None,
) -> int:
    """Start a run for each line of a file, and write what comes of it.

    After a crash or a kill the same command goes on: no run is created twice.
    Ctrl-C finishes the lines in progress; a second one leaves them to the next start.

        openai-runs batch run in.jsonl --out out.jsonl --checkpoint b.db
        openai-runs batch run a.csv --template t.json --out o --checkpoint b.db

    Exits with 0 if all lines completed, with 4 if some failed.

    Args:
        source: JSON lines in the form of the vendor's Batch API, or CSV with --template.
        out: File for the lines of completed runs.
        checkpoint: File that knows what was done; made if it is not there.
        errors: File for the lines of all others; else beside OUT, as NAME.errors.jsonl.
        template: JSON file with the body of each row of a CSV, with {column} for a value.
        tools: MODULE:FUNCTION that answers the tool calls of the runs; repeatable.
        concurrency: Lines in progress at most.
        rpm: Requests per minute at most, polls included.
        retry_failed: Retry what failed for a reason that may pass, also in earlier starts.
        max_failures: Failures after which no further line is begun.
        base_url: Server to send to, up to /v1; else OPENAI_BASE_URL.
        api_key_env: Environment variable that holds its key; else OPENAI_API_KEY.
        model_url: Chat-completions endpoint that answers, with --db.
        model_key_env: Environment variable that holds the key of that endpoint.
        db: SQLite file of a server inside of this command.
    """
    from openai_runs._cli.batch import Job, carry_out_job
    from openai_runs._cli.connecting import Place

    return carry_out_job(
        Job(
            source=source,
            out=out,
            checkpoint=checkpoint,
            errors=errors,
            template=template,
            tools=tuple(tools or ()),
            concurrency=concurrency,
            rpm=rpm,
            retry_failed=retry_failed,
            max_failures=max_failures,
            place=Place(
                base_url=base_url,
                api_key_env=api_key_env,
                db=db,
                model_url=model_url,
                model_key_env=model_key_env,
            ),
        )
    )


@_batch.command(name="status")
def batch_status(checkpoint: Annotated[Path, Parameter(name="FILE")], /) -> int:
    """Show how far a batch has come, also while it is at work.

    Reads the checkpoint alone: no server is asked.

        openai-runs batch status batch.db

    Args:
        checkpoint: The checkpoint file.
    """
    from openai_runs._cli.batch import show_status

    return show_status(checkpoint)


def run(arguments: Sequence[str]) -> int:
    """Carry out the command line `arguments`; return the exit code."""
    try:
        return _obey(arguments)
    except Closed:
        from openai_runs._cli.outputs import silence

        silence(sys.stdout, sys.stderr)
        return CLOSED


def _obey(arguments: Sequence[str]) -> int:
    if sys.stdout is None:
        return _complain("standard output is closed: there is nowhere to print to", ERROR, ())
    try:
        code = _app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()), USAGE, arguments)
    except Stop as stop:
        return _complain(str(stop), stop.code, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _target(
    run_id: str, *, thread: str, base_url: str | None, api_key_env: str | None, db: Path | None
) -> "Target":
    from openai_runs._cli.connecting import Place
    from openai_runs._cli.runs import Target

    place = Place(base_url=base_url, api_key_env=api_key_env, db=db)
    return Target(run_id=run_id, thread_id=thread, place=place)


def _complain(sentence: str, code: int, arguments: Sequence[str]) -> int:
    from openai_runs._cli.outputs import say  # not before, as it loads what `--help` needs not

    say(f"openai-runs: {sentence}", dim=False)
    if code == USAGE:
        command = [word for word in _app.parse_commands(list(arguments))[0] if word[0] != "-"]
        say(f"Try: {' '.join(['openai-runs', *command])} --help", dim=False)
    return code
