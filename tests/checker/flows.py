"""I10 for flows: what a flow commands, only its own code can tell, so it is asked itself.

The judge shares no code with the engine, and has no second engine for Python. It hands the journals to
``wpa replay``, a process of its own, as a user would who wants to know whether today's code goes their way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.checker.case import Violation
from tests.checker.facts import Facts, Recorded

__all__ = ["flows_of", "replay"]

WPA: Final = str(Path(sys.executable).parent / "wpa")
WITHIN_S: Final = 120
VERDICTS: Final = (0, 1)
"""Exit statuses of ``wpa replay`` that come with a verdict: all replay, or some diverge. The second is that of
an error, too; then it prints no rows."""

Key = tuple[str, str]


def replay(facts: Facts, modules: Iterable[str], env: Mapping[str, str] | None = None) -> list[Violation]:
    """The executions of flows that the code in ``modules`` would not lead where they went.

    Args:
        facts: executions of plans among them are left alone: :mod:`tests.checker.promises.replay` judges them.
        modules: the flows, as ``wpa worker --flows`` takes them.
        env: of the process; None: ours.

    Raises RuntimeError where nothing could be found out.
    """
    journals = flows_of(facts)
    if not journals:
        return []
    rows = _replayed(facts, [journal for _, journal in journals], modules, env)
    told = zip(journals, rows, strict=True)
    return [_diverged(key, row) for (key, _), row in told if row["reason"]]


def flows_of(facts: Facts) -> list[tuple[Key, list[Recorded]]]:
    """The executions that no plan describes, with their journals."""
    plans = {(one.tenant, one.workflow) for one in facts.definitions}
    return [
        (key, journal)
        for key, journal in facts.journals().items()
        if (key[0], str(journal[0].body.get("workflow_id"))) not in plans
    ]


def _diverged(key: Key, row: Mapping[str, Any]) -> Violation:
    return Violation("I10", *key, f"its code diverges at event {row['diverges_at']}", [row["reason"]])


def _replayed(
    facts: Facts, journals: list[list[Recorded]], modules: Iterable[str], env: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """What ``wpa replay`` says of each journal, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        for number, journal in enumerate(journals):
            events = [_inline(facts, event.body) for event in journal]
            (Path(folder) / f"{number:06}.json").write_text(json.dumps(events))
        flows = [word for module in modules for word in ("--flows", module)]
        done = subprocess.run(
            [WPA, "replay", folder, "--json", *flows],
            capture_output=True, text=True, env=env, timeout=WITHIN_S, check=False,
        )  # fmt: skip
    if done.returncode not in VERDICTS or not done.stdout:
        raise RuntimeError(f"wpa replay ended with {done.returncode}: {done.stderr}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _inline(facts: Facts, value: Any) -> Any:
    """A value with every large payload in its place."""
    found = facts.resolve(value)
    if found is not value:
        return found
    if isinstance(value, dict):
        return {key: _inline(facts, item) for key, item in value.items()}
    return [_inline(facts, item) for item in value] if isinstance(value, list) else value
