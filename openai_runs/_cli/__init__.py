"""The command line: the only layer that prints."""

import sys

__all__ = ["main"]

_EXTRAS = {"cyclopts": "cli", "rich": "cli", "sqlalchemy": "server"}


def main() -> None:
    """Run the command of this process's arguments, and exit with its code."""
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
