"""The suite on other Pythons: what it reads from apt, pip and the project, and what it leaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import pythons

PROJECT = tomllib.loads((pythons.ROOT / "pyproject.toml").read_text())
TESTED = ("3.11", *pythons.SUITES)


def test_classifiers_are_the_pythons_that_are_tested() -> None:
    """No version is claimed that `poe long pythons` does not run."""
    found = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))

    assert tuple(found) == TESTED


def test_tests_are_run_as_by_poe_test() -> None:
    """By what `pyproject.toml` says, but for the coverage."""
    arguments = pythons.pytest_arguments(PROJECT["tool"]["poe"]["tasks"]["test"])

    assert arguments == ["-m", "pytest", "--numprocesses=auto", "--dist=worksteal"]


def test_mirrors_are_debians_of_apt() -> None:
    """In apt's order, each once; others' packages, and parts but `main`, are none."""
    targets = """\
Debian|main|http://one.example/debian/
Debian|contrib|http://parts.example/debian/
Debian|main|http://one.example/debian/
Node Source|main|http://others.example/
Debian|main|http://two.example/debian-security/
"""

    assert pythons.mirrors_of(targets) == [
        "http://one.example/debian/",
        "http://two.example/debian-security/",
    ]


def test_settings_of_pip_become_its_variables() -> None:
    """The environment wins over the command's section, and that over the global one."""
    settings = r"""
:env:.cert='/env.pem'
:env:.config-file='/elsewhere'
freeze.timeout='1'
global.cert='/global.pem'
global.extra-index-url='file:///a/simple\nhttps://b.example/simple'
global.timeout='60'
install.timeout='90'
""".strip()

    assert pythons.pip_variables(settings) == {
        "PIP_CERT": "/env.pem",
        "PIP_EXTRA_INDEX_URL": "file:///a/simple https://b.example/simple",
        "PIP_TIMEOUT": "90",
    }


def test_files_that_settings_name_are_shown_inside(tmp_path: Path) -> None:
    """An index on disk with what lies beside it, for its pages refer to that."""
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "wheels").mkdir()
    variables = {
        "PIP_CONSTRAINT": f"{tmp_path}/constraints.txt",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/index/simple https://b.example/simple",
        "PIP_FIND_LINKS": f"{tmp_path}/wheels {tmp_path}/nothing",
        "PIP_TIMEOUT": "60",
    }

    assert pythons.paths_of(variables) == [
        tmp_path / "constraints.txt",
        tmp_path / "index",
        tmp_path / "wheels",
    ]


COUNTS = {
    "all": ("==== 5142 passed in 301.20s (0:05:01) ====", "5142 passed"),
    "some": ("= 1 failed, 5140 passed, 2 skipped in 1.2s =", "1 failed 5140 passed 2 skipped"),
    "none": ("= no tests ran in 0.01s =", ""),
    "usage": ("ERROR: file or directory not found: x in 3 places", ""),
}


@pytest.mark.parametrize(("line", "counts"), COUNTS.values(), ids=COUNTS)
def test_counts_are_read_from_the_last_line_of_pytest(line: str, counts: str) -> None:
    """Whatever ended there; empty where no test did."""
    assert pythons.counts_of(line) == counts


def test_other_users_than_root_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line, before anything is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert pythons.main(["3.14", f"--folder={tmp_path}/made"]) == 1

    assert capsys.readouterr().out == ("Python 3.14 can be installed into a folder by root alone\n")
    assert not list(tmp_path.iterdir())


def test_unknown_python_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The names that there are stand in the sentence."""
    with pytest.raises(SystemExit):
        pythons.main(["3.12"])

    assert f"no such Python: 3.12; there are {pythons.HOST}, 3.1" in capsys.readouterr().err


def may_mount() -> bool:
    """Return whether this process may make namespaces of its own, as root outside containers."""
    command = shutil.which("unshare")
    return (
        command is not None
        and not subprocess.run(
            [command, "--mount", "--pid", "--fork", "true"], check=False, capture_output=True
        ).returncode
    )


@pytest.mark.skipif(not may_mount(), reason="may not mount")
def test_command_inside_leaves_no_mount_and_no_process(tmp_path: Path) -> None:
    """The folder is the root of what runs there, and all of it ends with the command."""
    given, root = tmp_path / "given", tmp_path / "root"
    given.write_text("from outside")
    system = [path for path in map(Path, ("/bin", "/lib", "/lib64", "/usr")) if path.exists()]
    pythons.give_mount_points(root, [given, *system, Path("/dev"), Path("/proc")])
    command = pythons.entering(root, [given, *system], Path("/proc"))

    script = 'sleep 1000 & echo "$PWD"; cat "$0"; echo; grep -c " / " /proc/mounts'
    done = subprocess.run(  # ends when nobody has its output any more, the sleep included
        [*command, "sh", "-c", script, str(given)],
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.stdout.splitlines() == ["/proc", "from outside", "1"]
    assert str(root) not in Path("/proc/mounts").read_text()
