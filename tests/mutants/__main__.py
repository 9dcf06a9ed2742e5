"""``make mutants``: plant each known bug in a copy of the code, and see which test notices.

Exits 1 where one survives, or can't be planted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NOTICED = Path(__file__).with_name("noticed.json")
"""Which test noticed each bug, the last time. Kept, so that the next time it is asked first."""
COPIED = ("wpa", "tests", "examples", "plugins", "schemas", "docs", "nats", "benchmarks")
FILES = ("pyproject.toml", "README.md")
SUITES = (
    ("tests/unit/kernel", "tests/unit/flows", "tests/unit/engine", "tests/golden"),
    ("tests/sim",),
    ("tests/unit/testing",),
    ("tests/contract",),
)
"""What is asked, one after the other, until somebody notices: the quick ones first."""
SUITE_S = 600
TEST_S = 90
"""A test that a bug keeps from ending has noticed it, too. A thread ends it: the exception that a signal raises
stays within the asyncio task that it happens to meet."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
NO_SUCH_TEST = (4, 5)
"""How pytest ends where it does not find what it is asked for."""


def plant(mutant: Mutant, folder: Path) -> None:
    """Put the bug into the copy. Raises ValueError where its place is not found exactly once."""
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.code) != 1:
        raise ValueError(f"{mutant.file} has its code {text.count(mutant.code)} times, not once")
    path.write_text(text.replace(mutant.code, mutant.bug))


def asked(folder: Path, *what: str) -> str:
    """What fails of the tests asked for: the first, or what was told instead; empty where nothing does."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [f"--timeout={TEST_S}", "--timeout-method=thread", *what]
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=SUITE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{what[-1]} (it never ends)"
    if done.returncode == 0 or done.returncode in NO_SUCH_TEST:
        return ""
    found = FAILED.search(done.stdout)
    return found.group(1) if found else f"{what[-1]}: {done.stdout[-300:]}"


def notices(folder: Path, test: str) -> bool:
    """Whether a test fails by itself with the bug, and passes without it."""
    return asked(folder, test) != "" and asked(ROOT, test) == ""


def killer(folder: Path, known: str) -> str:
    """The first test that notices the bug, and not that the machine is busy: see :func:`notices`.

    Args:
        folder: holds the code with the bug.
        known: the test that noticed it the last time; it is asked first.
    """
    if known and notices(folder, known):
        return known
    for suite in SUITES:
        doubtful: list[str] = []
        while found := asked(folder, "-n", "2", *(f"--deselect={test}" for test in doubtful), *suite):
            if "::" not in found or found in doubtful or notices(folder, found):
                return found
            doubtful.append(found)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name holds this")
    wanted = [mutant for mutant in MUTANTS if parser.parse_args().only in mutant.name]
    noticed: dict[str, str] = json.loads(NOTICED.read_text())
    survivors = 0
    for number, mutant in enumerate(wanted, 1):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="wpa-mutant-") as name:
            folder = Path(name)
            for each in COPIED:
                shutil.copytree(
                    ROOT / each, folder / each, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
                )
            for each in FILES:
                shutil.copy(ROOT / each, folder / each)
            try:
                plant(mutant, folder)
                found = killer(folder, noticed.get(mutant.name, ""))
            except ValueError as error:
                found, survivors = f"CAN'T BE PLANTED: {error}", survivors + 1
            else:
                survivors += not found
                noticed[mutant.name] = found
                NOTICED.write_text(json.dumps(noticed, indent=2, sort_keys=True) + "\n")
        told = found or "SURVIVES"
        print(
            f"{number:>2}/{len(wanted)}  {mutant.name:<58} {time.monotonic() - began:5.0f} s  {told}",
            flush=True,
        )
    print(f"{len(wanted) - survivors} of {len(wanted)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
