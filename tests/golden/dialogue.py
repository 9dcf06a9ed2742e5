"""Golden dialogues: a plan, a script of what happens to it, and every event the kernel answers with.

Script lines:

    ok SLOT [JSON]          the attempt at SLOT succeeds
    fail SLOT TYPE [final]  the attempt at SLOT fails with an error of TYPE (final: not retryable)
    later DURATION          so much time passes; nobody looks before it is over
    crash                   the worker dies: fold the journal, take over

``WPA_REWRITE_GOLDEN=1 pytest tests/golden`` writes the expected events anew; review the difference as code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.kernel.table import Table
from wpa import plan
from wpa.plan.durations import parse_duration_ms

FILES = sorted((Path(__file__).parent / "dialogues").glob("*.json"))


def play(dialogue: dict[str, Any]) -> Table:
    """The table at the end of the script."""
    table = Table(plan.load(dialogue["plan"]), dialogue.get("input", {}))
    for line in dialogue["script"]:
        verb, _, rest = line.partition(" ")
        if verb == "ok":
            slot, _, output = rest.partition(" ")
            table.attempt(slot, output=json.loads(output) if output else None)
        elif verb == "fail":
            slot, kind, *final = rest.split()
            table.fail(slot, kind, retryable=not final)
        elif verb == "later":
            table.now_ms += parse_duration_ms(rest)
            table.follow()
        elif verb == "crash":
            table.crash()
        else:
            raise ValueError(f"unknown verb in {line!r}")
    return table


def transcript(table: Table) -> list[dict[str, Any]]:
    """The events, without what is the same in all of them."""
    return [{"event": event.event, "epoch": event.epoch, **event.data} for event in table.journal]
