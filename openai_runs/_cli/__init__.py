"""The command line: words for people, the only room that prints.

What may not live here: anything a program could need.
"""

import sys

__all__ = ["main"]

_EXTRAS = {"cyclopts": "cli", "rich": "cli", "sqlalchemy": "server"}


def main() -> None:
    """Do what the arguments of this process say, and exit with the code that tells of it."""
    try:
        from openai_runs._cli.app import run

        code = run(sys.argv[1:])
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        extra = _EXTRAS[package]
        print(
            f"openai-runs: the package {package} is missing: pip install 'openai-runs[{extra}]'",
            file=sys.stderr,
        )
        code = 1
    except KeyboardInterrupt:  # while modules are loaded; later the commands see to it
        code = 130
    sys.exit(code)
