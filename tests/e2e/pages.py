"""Documentation pages as tests: what a page shows is run, and has to be what happens.

A ``console`` block is a session: each line that begins with ``$`` is run by a shell, and what follows is what it
prints. Moments, durations, worker names, process ids and hashes are different each time: they are compared as
such. A line that is ``…`` stands for any number of lines.

``WPA_REWRITE_PAGES=1`` writes what was printed into the pages; review the diff.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.waiting import PATIENCE_S

__all__ = ["Command", "Session", "blocks", "rewritten", "run_page", "same"]

LOOKS = ("status", "list", "history", "workers", "approvals list", "schedule list")
"""Commands that change nothing: they may be asked again until what was asked for before has happened."""

VARIABLE = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<moment>"),
    (re.compile(r"\b\d{8}T\d{6,9}Z\b"), "<compact moment>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b(\d+ min )?\d+(\.\d+)? (ms|s)\b"), "<duration>"),
    (re.compile(r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{6}\b"), "<worker>"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "<hash>"),
    (re.compile(r"\s+"), " "),
]


class Command(NamedTuple):
    """One command of a session, and what the page says that it prints."""

    text: str
    shown: str

    @property
    def looks(self) -> bool:
        return any(self.text.startswith(f"wpa {name}") for name in LOOKS)


Session = Callable[[str], str]
"""Runs one line of shell; what it prints."""


def blocks(page: str, language: str) -> Iterator[str]:
    """The fenced blocks of a language, in order."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[Command]:
    """The commands of a console block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not parts[0].strip(), f"a console block begins with a command, not {parts[0]!r}"
    return [Command(*part.partition("\n")[::2]) for part in parts[1:]]


def same(shown: str, printed: str) -> bool:
    """Whether what a page shows is what was printed."""
    lines = [re.escape(_constant(line)) for line in shown.splitlines()]
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else line.replace("…", ".*") + r"\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{_constant(line)}\n" for line in printed.splitlines())) is not None


def _constant(line: str) -> str:
    for pattern, name in VARIABLE:
        line = pattern.sub(name, line)
    return line.strip()


def run_page(page: str, session: Session, *, patient: bool = True) -> list[tuple[Command, str]]:
    """Run all the sessions of a page: its commands, in order, with what they printed.

    A command that only looks is asked again for a while: until it prints what the page shows or, where not
    ``patient``, until nothing is under way any more. What came of a command that printed something else in
    spite of that is of no interest: it is the last.
    """
    done = []
    for block in blocks(page, "console"):
        for command in commands(block):
            printed = session(command.text)
            deadline = time.monotonic() + PATIENCE_S
            while command.looks and time.monotonic() < deadline:
                if same(command.shown, printed) if patient else "RUNNING" not in printed:
                    break
                time.sleep(0.2)
                printed = session(command.text)
            done.append((command, printed))
            if patient and not same(command.shown, printed):
                return done
    return done


def rewritten(page: str, done: list[tuple[Command, str]]) -> str:
    """The page with what was printed in place of what it showed, where that is something else."""
    begun = 0
    for command, printed in done:
        begun = page.index(f"$ {command.text}\n{command.shown}", begun) + len(f"$ {command.text}\n")
        if not same(command.shown, printed):
            shown = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
            page = page[:begun] + shown + page[begun + len(command.shown) :]
    return page
