"""Run the tests of this folder for minutes in place of their few cases.

    python -m tests.fuzz --minutes 10 --seed 1000

Failures name their seeds; the last line printed has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def summed(lines: list[str]) -> str:
    """Return the figures of all parts in one line."""
    parts = [json.loads(line) for line in lines]
    total, failed = (sum(part[key] for part in parts) for key in ("cases", "failures"))
    each = "; ".join(
        f"{part['part']} {part['cases']:,} (peak memory +{part['mib']} MiB)" for part in parts
    )
    return f"fuzz: {total:,} cases, {failed} failures: {each}"


def main(arguments: list[str]) -> int:
    """Run all parts; return the exit code of pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each part")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", default="auto", help="parts at the same time")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures")
        figures.touch()
        environ = {
            **os.environ,
            "FUZZ_SECONDS": str(given.minutes * 60),
            "FUZZ_SEED": str(given.seed),
            "FUZZ_FIGURES": str(figures),
        }
        command = [sys.executable, "-m", "pytest", "-q", f"--numprocesses={given.jobs}"]
        done = subprocess.run(
            [*command, "--show-capture=stdout", "--tb=short", "tests/fuzz"],
            cwd=ROOT,
            env=environ,
            check=False,
        )
        print(f"seeds from {given.seed}, {given.minutes:g} minutes for each part", flush=True)
        print(summed(figures.read_text().splitlines()), flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
