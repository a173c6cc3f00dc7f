"""The tree of commands, and what happens when one is called.

What may not live here, in `parsing` or in `usage`: an import of the client or the server; `--help`
must be quick.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from cyclopts import App, CycloptsError

from openai_runs import __version__
from openai_runs._cli.ending import CLOSED, ERROR, INTERRUPTED, USAGE, Closed, Stop
from openai_runs._cli.parsing.archive import export, import_archive
from openai_runs._cli.parsing.ask import ask
from openai_runs._cli.parsing.assistants import (
    create_assistant,
    delete_assistant,
    list_assistants,
    show_assistant,
    update_assistant,
)
from openai_runs._cli.parsing.batch import batch_run, batch_status, batch_table
from openai_runs._cli.parsing.chat import chat
from openai_runs._cli.parsing.demo import demo
from openai_runs._cli.parsing.doctor import doctor
from openai_runs._cli.parsing.exit_codes import EXIT_CODES, exit_codes
from openai_runs._cli.parsing.runs import cancel, list_runs, show, wait
from openai_runs._cli.parsing.serve import serve
from openai_runs._cli.parsing.threads import list_threads, show_thread
from openai_runs._cli.parsing.worker import worker
from openai_runs._cli.terminal.wrapping import flowing
from openai_runs._cli.usage.mistakes import explain

__all__ = ["run"]

_NAME: Final = "openai-runs"
_ZSH_FUNCTION: Final = "_cyclopts_openai-runs"
"""What cyclopts calls the function of its script."""
_HELP: Final = """\
Runs of the OpenAI Assistants API: start, wait, answer tools, read steps.

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

_app: Final = App(
    name=_NAME,
    help=_HELP,
    help_epilogue=exit_codes(*EXIT_CODES),
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
_runs: Final = App(
    name="runs", help="List runs; show one, wait for it or cancel it.", help_epilogue=""
)
_threads: Final = App(
    name="threads", help="List threads, and show what was said.", help_epilogue=""
)
_assistants: Final = App(
    name="assistants", help="Create, list, show, update and delete assistants.", help_epilogue=""
)
_batch: Final = App(
    name="batch", help="Carry out many runs from a file, and go on after a crash.", help_epilogue=""
)
_DONE: Final = exit_codes(0, 1, 2, 130, 141, done="done")
_SHOWN: Final = exit_codes(0, 1, 2, 130, 141, done="shown")


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what completes this command in a shell.

    Put the line of your shell into its start file:

        eval "$(openai-runs completion bash)"
        eval "$(openai-runs completion zsh)"
        openai-runs completion fish | source

    Args:
        shell: Which shell.
    """
    from openai_runs._cli.outputs import print_text

    script = _app.generate_completion(shell=shell)
    if shell == "zsh":  # where it is evaluated, and not a file that zsh finds by its name
        script += f"\ncompdef {_ZSH_FUNCTION} {_NAME}\n"
    print_text(script)
    return 0


def _add(app: App, function: Callable[..., int], **options: Any) -> None:
    """Add a command; its help is broken at the width of the terminal, not as in the source."""
    function.__doc__ = flowing(function.__doc__ or "")
    app.command(function, **options)


_add(_app, demo, help_epilogue=exit_codes(0, 1, 130))
_add(
    _app,
    serve,
    help_epilogue=exit_codes(0, 1, 2, 130, 143, done="stopped by SIGTERM or SIGHUP"),
)
_add(
    _app,
    worker,
    help_epilogue=exit_codes(0, 1, 2, 130, 143, done="stopped by SIGTERM or SIGHUP"),
)
_add(
    _app,
    ask,
    usage="Usage: openai-runs ask [OPTIONS] TEXT",
    help_epilogue=exit_codes(*EXIT_CODES),
)
_add(_app, chat, help_epilogue=exit_codes(0, 1, 2, 3, 4, 5, 130, 141, 143, done="ended"))
_add(
    _app,
    doctor,
    help_epilogue=exit_codes(0, 1, 2, 130, done="nothing fails", error="something fails"),
)
_add(_app, completion, help_epilogue=exit_codes(0, 2, done="printed"))
_app.command(_runs)
_add(
    _runs,
    cancel,
    help_epilogue=exit_codes(
        0, 1, 2, 6, 130, done="cancelled", error="error, or the run had ended otherwise"
    ),
)
_add(_runs, list_runs, name="list", help_epilogue=_SHOWN)
_add(_runs, show, help_epilogue=_SHOWN)
_add(_runs, wait, help_epilogue=exit_codes(*EXIT_CODES))
_app.command(_threads)
_add(_threads, list_threads, name="list", help_epilogue=_SHOWN)
_add(_threads, show_thread, name="show", help_epilogue=_SHOWN)
_app.command(_assistants)
_add(
    _assistants,
    create_assistant,
    name="create",
    help_epilogue=exit_codes(0, 1, 2, 130, 141, done="created"),
)
_add(
    _assistants,
    delete_assistant,
    name="delete",
    help_epilogue=exit_codes(0, 1, 2, 130, 141, done="deleted"),
)
_add(_assistants, list_assistants, name="list", help_epilogue=_SHOWN)
_add(_assistants, show_assistant, name="show", help_epilogue=_SHOWN)
_add(
    _assistants,
    update_assistant,
    name="update",
    help_epilogue=exit_codes(0, 1, 2, 130, 141, done="changed"),
)
_add(_app, export, help_epilogue=_DONE)
_add(_app, import_archive, name="import", help_epilogue=_DONE)
_app.command(_batch)
_add(
    _batch,
    batch_run,
    name="run",
    help_epilogue=exit_codes(0, 1, 2, 4, 130, done="all completed").replace(
        EXIT_CODES[4], "some failed"
    ),
)
_add(_batch, batch_status, name="status", help_epilogue=_SHOWN)
_add(_batch, batch_table, name="table", help_epilogue=_SHOWN)


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
        sentence = "standard output is closed: there is nowhere to print to"
        return _complain(sentence, ERROR, arguments)
    try:
        code = _app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _complain(explain(error, _app, arguments), USAGE, arguments)
    except Stop as stop:
        return _complain(str(stop), stop.code, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _complain(sentence: str, code: int, arguments: Sequence[str]) -> int:
    from openai_runs._cli.outputs import say  # not before, as it loads what `--help` needs not

    say(f"openai-runs: {sentence}", dim=False)
    if code == USAGE:
        chain, _, _ = _app.parse_commands(arguments)
        command = [word for word in chain if not word.startswith("-")]
        say(f"Try: {' '.join([_NAME, *command, '--help'])}", dim=False)
    return code
