"""The command line: the only layer that prints."""

import sys

from openai_runs._cli.ending import INTERRUPTED, stopped
from openai_runs._cli.signals import SIGNALS, Ended
from openai_runs._extras import is_of_an_extra, needs

__all__ = ["main"]


def main() -> None:
    """Run the command of this process's arguments, and exit with its code."""
    if sys.argv[1:2] in (["serve"], ["worker"]):  # before anything is loaded that takes long
        SIGNALS.install()
    try:
        code = _run()
    except Ended:
        code = stopped(SIGNALS.received)
        SIGNALS.ignore()
    except KeyboardInterrupt:  # while modules are loaded; later the commands see to it
        code = INTERRUPTED
    finally:
        SIGNALS.restore()
    sys.exit(code)


def _run() -> int:
    try:
        from openai_runs._cli.app import run

        return run(sys.argv[1:])
    except ImportError as error:
        if not is_of_an_extra(error):
            raise
        print(f"openai-runs: {needs('this command', error)}", file=sys.stderr)
        return 1
