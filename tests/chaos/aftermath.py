"""What is told of a run that came to grief, so that nobody has to have seen it: it may not come again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from tests.checker.case import Violation, told
from tests.checker.facts import Facts

__all__ = ["journals", "last_words"]

EXECUTIONS_MAX: Final = 3
LOGS_MAX: Final = 8
LINES: Final = 12
CHARS: Final = 300
"""Of a line."""


def journals(facts: Facts, violations: list[Violation]) -> Iterator[str]:
    """The journals of the first executions that are complained of."""
    found = facts.journals()
    named = dict.fromkeys((one.tenant, one.execution) for one in violations)
    for key in islice((key for key in named if key in found), EXECUTIONS_MAX):
        yield f"the journal of {'.'.join(key)}:"
        yield from (f"    {told(event)}" for event in found[key])


def last_words(folder: Path) -> Iterator[str]:
    """The ends of the logs in a folder, of servers and workers: of those that were written last."""
    logs = sorted(folder.rglob("*.log"), key=lambda path: path.stat().st_mtime)
    for path in logs[-LOGS_MAX:]:
        yield f"the end of {path.relative_to(folder)}:"
        yield from (f"    {line[:CHARS]}" for line in path.read_text(errors="replace").splitlines()[-LINES:])
