"""The tiers: what `poe test` leaves out is run by a name of `poe long`, which keeps its result."""

import re
import tomllib
from pathlib import Path

import pytest

from tests import long

PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())
PYTEST = PROJECT["tool"]["pytest"]["ini_options"]
MARKS = {mark.partition(":")[0] for mark in PYTEST["markers"]}


def words_of(expression: str) -> set[str]:
    """Return the marks that an expression names."""
    return set(re.findall(r"\w+", expression)) - {"m", "not", "or"}


def test_tests_left_out_are_run_by_a_name() -> None:
    """Each mark of ours is left out of `poe test`, and some `poe long` has those tests run."""
    (left_out,) = (option for option in PYTEST["addopts"] if option.startswith("-m "))
    commands = [one.command for one in long.ALL.values() if "pytest" in one.command]
    expressions = [each[each.index("-m", 2) + 1] for each in commands if each.count("-m") > 1]
    run = {word for expression in expressions for word in words_of(expression)}

    assert words_of(left_out) == MARKS
    assert run - {"hypothesis"} == MARKS


def test_results_are_those_of_names() -> None:
    """No result is left of what is not run any more."""
    assert {path.stem for path in long.RESULTS.glob("*")} <= long.ALL.keys()


def test_names_are_listed_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    """`poe long` alone is a question."""
    assert long.main([]) == 0

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(long.ALL)


def test_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A typo runs nothing, and is told what there is."""
    assert long.main(["kill"]) == 2

    assert "no such name: kill; there are archive, batch, bots" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "verdict"), [(0, "passed"), (1, "failed, exit code 1")])
def test_result_tells_the_verdict_and_how_to_get_it_again(code: int, verdict: str) -> None:
    """Date, commit, figures, and the command."""
    command = ["-m", "tests.e2e.sweep"]

    text = long.page(
        "sweep",
        tested=long.commit(),
        code=code,
        figures="sweep: 8 cases",
        seconds=1.4,
        command=command,
    )

    assert text.startswith("# sweep\n")
    for row in (
        f"| verdict | {verdict} |",
        "| result | sweep: 8 cases |",
        "| seconds | 1 |",
        "| command | `python -m tests.e2e.sweep` |",
    ):
        assert row in text
    assert re.search(r"^\| commit \| `\S+` \|$", text, re.MULTILINE)
    assert re.search(r"^\| date \| \d{4}-\d\d-\d\d \|$", text, re.MULTILINE)


def test_last_line_is_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    """What runs is shown as it goes, and its exit code is kept."""
    code, last = long.run(["-c", "print('one'); print('two'); print(); raise SystemExit(3)"])

    assert (code, last) == (3, "two")
    assert "one\ntwo\n" in capfd.readouterr().out


def test_table_is_kept_beside_the_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A table that a long one writes stands below its verdict; without one there is none."""
    monkeypatch.setattr(long, "ROOT", tmp_path)
    assert long.kept_table("soak") == long.kept_table("sweep") == ""
    (tmp_path / "build" / "soak").mkdir(parents=True)
    (tmp_path / "build" / "soak" / "table.md").write_text("| figure |\n")

    text = long.page("soak", tested="a", code=0, figures="soak: 1", seconds=1, command=["-m", "a"])

    assert "| result | soak: 1 |\n\n| figure |\n" in text


@pytest.mark.parametrize("name", ["chaos", "soak"])
def test_what_was_found_is_kept_when_a_name_is_run_again(name: str) -> None:
    """It is written by people, and stands under the figures of the last run."""
    _, found, words = (long.RESULTS / f"{name}.md").read_text().partition(long.FOUND)

    text = long.page(name, tested="0", code=0, figures="", seconds=1, command=[])

    assert words
    assert text.endswith(f"\n\n{found}{words}")
