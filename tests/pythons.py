"""The suite on each Python that is supported.

    python -m tests.pythons                       all of them; needs root
    python -m tests.pythons 3.14 -- -k opening    some of them, with further arguments of pytest

`poe long pythons` does the same and keeps the result. The Python that runs this is one; the others
are those of Debian's suites, each installed into a folder by debootstrap, from the package mirror
that apt has. In every one the commit that is checked out is fetched into a clone, installed into
an environment of its own with the machine's settings of pip, and tested by the command of
`poe test`. The folders are kept for the next run, outside of the project. One that was not made
whole is made again.

A command in such a folder runs in namespaces of its own for mounts and processes. Both end with
this process, however it ends, so neither a mount nor a process is left behind.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.long import shown

ROOT: Final = Path(__file__).resolve().parents[1]
HOST: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
SUITES: Final = {"3.13": "trixie", "3.14": "sid"}
"""Python -> the suite of Debian that has it."""
NAMES: Final = tuple(dict.fromkeys((HOST, *SUITES)))

_PACKAGES: Final = ("ca-certificates", "git", "python3", "python3-venv")
_SCRIPT: Final = "/usr/share/debootstrap/scripts/sid"
"""How a suite is installed: the same for all of today, whose names debootstrap may not know."""
_APT_HELPER: Final = "/usr/lib/apt/apt-helper"
_NETWORK: Final = ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
_VARIABLES: Final = r"(?i:\w+_proxy)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE"
"""Of the environment, what else pip needs to reach its index."""
_LEAVES_NOTHING: Final = ("setpriv", "--pdeathsig", "KILL", "--")
_ISOLATED: Final = (*_LEAVES_NOTHING, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--")


class NotTestedError(Exception):
    """What keeps a Python from being tested, in one line."""


class Home(NamedTuple):
    """A clone and its environment, and how a command is run there."""

    name: str
    clone: Path
    inside: Path
    """The clone as commands see it."""
    prefix: list[str]
    python: str
    """What the environment is made with."""
    environment: dict[str, str]

    @property
    def folder(self) -> Path | None:
        """Return the folder that commands begin in; None: the prefix says it."""
        return self.clone if self.clone == self.inside else None


def pytest_arguments(project: Mapping[str, Any]) -> list[str]:
    """Return the arguments of Python with which `poe test` runs the tests, without coverage."""
    steps = [step["cmd"] for step in project["sequence"] if isinstance(step, dict)]
    (words,) = (shlex.split(step) for step in steps if "pytest" in step)
    return words[words.index("-m") :]


def mirrors_of(targets: str) -> list[str]:
    """Return the addresses of Debian's packages among apt's targets, in apt's order."""
    lines = (line.split("|") for line in targets.splitlines())
    return list(dict.fromkeys(uri for *what, uri in lines if what == ["Debian", "main"]))


def pip_variables(settings: str) -> dict[str, str]:
    """Return what `pip config list` says, as environment variables of pip."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found and name != "config-file":
            words = str(ast.literal_eval(value)).split()
            found[section]["PIP_" + name.upper().replace("-", "_")] = " ".join(words)
    return {name: value for part in found.values() for name, value in part.items()}


def paths_of(variables: Mapping[str, str]) -> list[Path]:
    """Return the files and folders that the variables refer to, each once."""
    found = set()
    for word in " ".join(variables.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            # The pages of an index refer to files beside it.
            is_index = word.startswith("file://") and len(path.parts) > 2
            found.add(path.parent if is_index else path)
    return sorted(found)


def counts_of(line: str) -> str:
    """Return how many tests passed and failed, from the last line of pytest; else empty.

    >>> counts_of("=== 1 failed, 5142 passed in 301.20s (0:05:01) ===")
    '1 failed 5142 passed'
    """
    said, _, _ = line.partition(" in ")
    return " ".join(re.findall(r"\d+ [a-z]+", said)) if re.search(r" in \d", line) else ""


def _output(
    command: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Return what the command prints.

    Raises:
        NotTestedError: It failed, or is not installed.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        message = f"{error.filename} is not installed"
        raise NotTestedError(message) from error
    if done.returncode:
        print(done.stdout)
        message = f"exit code {done.returncode} of {shlex.join(command)[-200:]}"
        raise NotTestedError(message)
    return done.stdout


def _inside(home: Home, *command: str | Path) -> str:
    return _output([*home.prefix, *map(str, command)], env=home.environment, cwd=home.folder)


def _shown(home: Home, *command: str | Path) -> tuple[int, str]:
    """Run the command, print what it prints; return its exit code and its last line."""
    return shown(
        [*home.prefix, *map(str, command)],
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        cwd=home.folder,
    )


def _mirror(suite: str) -> str:
    """Return the address of the first mirror of apt's that has the suite."""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)"]
    targets = _output(command)
    if not targets:  # apt knows no repository before it has read its index
        _output(["apt-get", "update", "-q"])
        targets = _output(command)
    for mirror in mirrors_of(targets):
        with tempfile.TemporaryDirectory() as folder:
            release = f"{mirror}dists/{suite}/InRelease"
            command = [_APT_HELPER, "download-file", release, f"{folder}/InRelease"]
            done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode == 0:
            return mirror
    message = f"no package mirror of apt's has Debian's {suite}"
    raise NotTestedError(message)


def _install(suite: str, root: Path) -> None:
    """Install the suite into the folder, unless it is there whole."""
    ready, contents = root / "ready", f"{suite} with {' '.join(_PACKAGES)}\n"
    if ready.is_file() and ready.read_text() == contents:
        return
    _remove(root)
    if shutil.which("debootstrap") is None:
        print("installing debootstrap", flush=True)
        _output(["apt-get", "update", "-q"])
        _output(["apt-get", "install", "-q", "-y", "debootstrap"])
    mirror = _mirror(suite)
    print(f"installing Debian's {suite} into {root}", flush=True)
    root.mkdir(parents=True)
    options = ["--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    proxy = _output(["apt-config", "shell", "http_proxy", "Acquire::http::Proxy"])
    environment = dict(os.environ)
    if proxy:
        environment["http_proxy"] = shlex.split(proxy)[0].partition("=")[2]
    command = ["debootstrap", *options, suite, str(root), mirror, _SCRIPT]
    _output([*_ISOLATED, *command], env=environment)
    ready.write_text(contents)


def _remove(folder: Path) -> None:
    _output(["rm", "-rf", "--one-file-system", str(folder)])


def entering(root: Path, shown: Iterable[Path], inside: Path) -> list[str]:
    """Return the words before a command that run it in `root`, with `shown` of the machine."""
    quoted = shlex.quote(str(root))
    mounts = [
        f"mount --bind {quoted} {quoted}",  # so that `/` is a line of /proc/mounts
        f"cd {quoted}",
        "mount -t proc proc proc",
        "mount --rbind /dev dev",
    ]
    mounts += [f"mount --bind -o ro {path} .{path}" for path in map(shlex.quote, map(str, shown))]
    # The shell stays: as process 1 of the namespace it collects processes that lost their parent.
    script = f'set -e; {"; ".join(mounts)}; chroot . sh -c \'cd {inside} && exec "$@"\' sh "$@"'
    return [*_ISOLATED, "sh", "-c", script + "; exit $?", "sh"]


def give_mount_points(root: Path, shown: Iterable[Path]) -> None:
    """Make what `shown` is mounted on in `root`, where it is not there."""
    for path in shown:
        point = root / path.relative_to("/")
        if path.is_dir():
            point.mkdir(parents=True, exist_ok=True)
        elif not point.is_file():
            point.parent.mkdir(parents=True, exist_ok=True)
            point.unlink(missing_ok=True)  # a link that points nowhere
            point.touch()


def _of_host(folder: Path) -> Home:
    clone = folder / "openai_runs"
    path = f"{clone}/.venv/bin:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": f"{clone}/.venv"}
    return Home(HOST, clone, clone, [*_LEAVES_NOTHING], sys.executable, variables)


def _of_debian(name: str, root: Path) -> Home:
    _install(SUITES[name], root)
    inside = Path("/root/openai_runs")
    settings = pip_variables(_output([sys.executable, "-m", "pip", "config", "list"]))
    passed = {n: value for n, value in os.environ.items() if re.fullmatch(_VARIABLES, n)}
    shown = sorted({*paths_of(settings | passed), *filter(Path.exists, map(Path, _NETWORK))})
    give_mount_points(root, shown)
    own = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": f"{inside}/.venv/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "VIRTUAL_ENV": f"{inside}/.venv",
    }
    clone = root / inside.relative_to("/")
    prefix = entering(root, shown, inside)
    return Home(name, clone, inside, prefix, "/usr/bin/python3", {**passed, **settings, **own})


def _fetch(clone: Path) -> None:
    """Check out the commit of the project; environments that were made there stay."""
    git = ["git", "-C", str(clone)]
    _output(["git", "init", "-q", str(clone)])
    _output([*git, "fetch", "-q", "--depth=1", "--no-tags", str(ROOT), "HEAD"])
    _output([*git, "checkout", "-q", "--force", "--detach", "FETCH_HEAD"])
    _output([*git, "clean", "-fdq"])


def _make_environment(home: Home) -> None:
    """Install the clone into an environment, unless one is there for the same `pyproject.toml`."""
    project = (home.clone / "pyproject.toml").read_text()
    version = _inside(home, home.python, "-c", "import sys; print(sys.version)")
    if not version.startswith(f"{home.name}."):
        message = f"{SUITES[home.name]} has another Python by now: {version.split()[0]}"
        raise NotTestedError(message)
    ready, contents = home.clone / ".venv/ready", f"{version}{project}"
    if not (ready.is_file() and ready.read_text() == contents):
        print(f"making the environment of Python {version.split()[0]}", flush=True)
        _inside(home, home.python, "-m", "venv", "--clear", ".venv")
        _inside(home, ".venv/bin/python", "-m", "pip", "install", "-q", "-e", ".[all,dev]")
        ready.write_text(contents)
    _inside(home, ".venv/bin/python", "tests/e2e/referee/environments.py")


def _test(name: str, folder: Path, more: list[str]) -> tuple[bool, str]:
    """Return whether the tests pass on this Python, and their figures."""
    print(f"--- Python {name}", flush=True)
    try:
        is_host = name not in SUITES
        home = _of_host(folder / name) if is_host else _of_debian(name, folder / name)
        _fetch(home.clone)
        _make_environment(home)
        project = tomllib.loads((home.clone / "pyproject.toml").read_text())
        arguments = pytest_arguments(project["tool"]["poe"]["tasks"]["test"])
        code, last = _shown(home, ".venv/bin/python", *arguments, *more)
    except NotTestedError as error:
        return False, f"{name} not tested: {error}"
    return code == 0, f"{name} {counts_of(last) or f'exit code {code}'}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep another run from the folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"{folder} is in use by another run"
            raise NotTestedError(message) from error
        yield


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    parser = argparse.ArgumentParser(prog="python -m tests.pythons")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; none: all")
    parser.add_argument("--folder", type=Path, default=cache / "openai_runs-pythons")
    parser.add_argument("--fresh", action="store_true", help="keep nothing of earlier runs")
    parsed = parser.parse_args(arguments[:cut])
    for name in parsed.names:
        if name not in NAMES:
            parser.error(f"no such Python: {name}; there are {', '.join(NAMES)}")
    return parsed, arguments[cut + 1 :]


def main(arguments: list[str]) -> int:
    """Test on the Pythons that are named, and print the figures of each in one line."""
    parsed, more = _parsed(arguments)
    names = parsed.names or NAMES
    debian = [name for name in names if name in SUITES]
    if debian and os.geteuid() != 0:
        print(f"Python {' and '.join(debian)} can be installed into a folder by root alone")
        return 1
    folder = parsed.folder.resolve()
    try:
        with _locked(folder):
            if _output(["git", "-C", str(ROOT), "status", "--porcelain"]):
                print("what is not committed is not tested", flush=True)
            for name in names if parsed.fresh else ():
                _remove(folder / name)
            tested = [_test(name, folder, more) for name in names]
    except NotTestedError as error:
        print(error)
        return 1
    print(", ".join(figures for _, figures in tested))
    return 0 if all(passed for passed, _ in tested) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
