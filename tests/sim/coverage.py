"""Which transitions of the state machine the runs went through, and which they never did."""

from __future__ import annotations

from collections import Counter
from typing import Final

from wpa.kernel.fold import LEGAL
from wpa.model import events as ev

__all__ = ["FAULTS", "NEVER", "SUITE_SEEDS", "Transition", "table", "uncovered"]

Transition = tuple[str, str]
"""The status before, and the event."""

SUITE_SEEDS: Final = 1_000
"""So many runs, from seed 0, see every legal transition."""
NEVER: Final[dict[Transition, str]] = {
    (
        "WAITING",
        ev.WAITING,
    ): "only in old journals: nobody drives what waits, and to wake it is an event first",
    (
        "PAUSED",
        ev.DECIDED,
    ): "one run in thousands: a pause has to be stored between a decision and its append",
}
"""Legal transitions that the suite's runs need not go through, and why."""

FAULTS: Final = frozenset(
    {
        "a call delayed", "a call never sent", "a clock set", "a delivery overtaken", "a nudge lost",
        "a read behind the times", "a reply lost", "a task in two hands", "a task sent twice",
        "a worker dead after a call", "a worker dead at what it sends", "a worker dead before a call",
        "a worker frozen", "an ack lost", "an append contended",
    }
)  # fmt: skip
"""All that goes wrong in the suite's runs."""


def uncovered(seen: Counter[Transition]) -> list[Transition]:
    """The legal transitions that should have been seen, and were not."""
    return [transition for transition in LEGAL if transition not in seen and transition not in NEVER]


def table(seen: Counter[Transition], runs: int) -> str:
    """All legal transitions, and the share of the runs that went through each."""
    lines = [f"{'status':<13} {'event':<18} {'leads to':<13} {'runs':>8}"]
    for (status, event), after in LEGAL.items():
        count = seen[status, event]
        about = ""
        if (status, event) in NEVER:
            about = f"  not asked for: {NEVER[status, event]}"
        elif not count:
            about = "  NEVER SEEN"
        name = event.removeprefix("workflow_")
        lines.append(f"{status or '-':<13} {name:<18} {after:<13} {count:>8} {count / runs:7.2%}{about}")
    return "\n".join(lines)
