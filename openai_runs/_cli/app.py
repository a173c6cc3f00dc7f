"""The tree of commands, and what happens when one is called.

What may not live here, or in `parsing`: an import of the client or the server; `--help` must be
quick.
"""

import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from openai_runs import __version__
from openai_runs._cli.ending import CLOSED, ERROR, INTERRUPTED, USAGE, Closed, Stop
from openai_runs._cli.parsing.archive import export, import_archive
from openai_runs._cli.parsing.ask import ask
from openai_runs._cli.parsing.batch import batch_run, batch_status
from openai_runs._cli.parsing.chat import chat
from openai_runs._cli.parsing.demo import demo
from openai_runs._cli.parsing.doctor import doctor
from openai_runs._cli.parsing.runs import cancel, list_runs, show, wait
from openai_runs._cli.parsing.serve import serve
from openai_runs._cli.parsing.threads import list_threads, show_thread

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
_runs: Final = App(name="runs", help="List runs; show one, wait for it or cancel it.")
_threads: Final = App(name="threads", help="List threads, and show what was said.")
_batch: Final = App(name="batch", help="Carry out many runs from a file, and go on after a crash.")

_app.command(demo)
_app.command(serve)
_app.command(ask, usage="Usage: openai-runs ask [OPTIONS] TEXT")
_app.command(chat)
_app.command(doctor)
_app.command(_runs)
_runs.command(cancel)
_runs.command(list_runs, name="list")
_runs.command(show)
_runs.command(wait)
_app.command(_threads)
_threads.command(list_threads, name="list")
_threads.command(show_thread, name="show")
_app.command(export)
_app.command(import_archive, name="import")
_app.command(_batch)
_batch.command(batch_run, name="run")
_batch.command(batch_status, name="status")


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
        return _complain("standard output is closed: there is nowhere to print to", ERROR)
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
    from openai_runs._cli.outputs import say  # not before, as it loads what `--help` needs not

    say(f"openai-runs: {sentence}", dim=False)
    if code == USAGE:
        say("Try: openai-runs --help", dim=False)
    return code
